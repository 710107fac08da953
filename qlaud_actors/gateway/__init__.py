"""The relay: compatible endpoints, metered, inside the API process."""
