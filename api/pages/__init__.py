"""Pages for people: HTML made on the server, without script and without anything from elsewhere."""
