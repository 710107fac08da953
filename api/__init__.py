"""The front door: parse, authenticate, call, answer."""
