"""What models cost: the operator's overrides, comparing with other tables, rating usage anew."""
