"""Tools: what a turn may call, and how a call is made."""
