"""Artifacts: texts, JSON and pictures that tools keep for an end user, a thread or a key."""
