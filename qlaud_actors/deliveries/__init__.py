"""Webhooks that tell an account what happened: written with the fact, delivered until taken."""
