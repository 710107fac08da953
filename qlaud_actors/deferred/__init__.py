"""Jobs: requests to a model that are answered later."""
