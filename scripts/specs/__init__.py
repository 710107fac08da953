"""Checks what connectors send against what vendors publish."""
