"""Conversations of other systems, read as ours: pure readers, one for each format."""
