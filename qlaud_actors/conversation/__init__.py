"""Thread actors: turns accepted, claimed, journaled, carried, told."""
