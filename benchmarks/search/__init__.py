"""How well and how fast messages are found."""
