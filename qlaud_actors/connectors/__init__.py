"""Vendors as data, their requests and answers, and the vault that seals secrets at rest."""
