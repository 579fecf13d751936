"""What the built-in recipes learn from: every file beside them is written by these modules."""
