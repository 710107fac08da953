"""All outgoing HTTP: the client for model streams, the guarded session for other people's URLs."""
