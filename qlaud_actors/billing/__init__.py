"""Money: holds before a call, settlements after it, and reports of both."""
