"""The workers: thin actors that take an id and call `qlaud_actors`."""
