"""Search over threads: by words in Postgres, by meaning in Chroma."""
