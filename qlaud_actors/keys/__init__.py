"""API keys: minted once, verified on every request, revoked at once."""
