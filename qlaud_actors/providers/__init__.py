"""Model providers: neutral types, two wires, the catalogue, and the caller."""
