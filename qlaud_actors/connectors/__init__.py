"""Vendors' side of the house; for now the vault that seals secrets at rest."""
