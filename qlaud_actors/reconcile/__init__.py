"""Proof that the books agree: with one another, and with what a provider says of the same calls."""
