"""How well and how fast the search over tools finds."""
