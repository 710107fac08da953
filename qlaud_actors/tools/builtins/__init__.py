"""Built-in tools: data (`catalog/*.toml`) where a connector's action does the work, else one module each."""
