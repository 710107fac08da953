"""What the relay costs, beside a bare proxy and beside others, in the same run."""
