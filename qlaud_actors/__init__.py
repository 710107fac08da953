"""qlaud-actors: capped keys, durable threads, a server-side tool loop, one meter."""

__version__ = "0.1.0"
