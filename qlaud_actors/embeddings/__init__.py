"""Texts as vectors of their meaning, computed on this machine without a download."""
