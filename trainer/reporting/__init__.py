"""A run as one HTML page: what was learned, how it went, and what the model says now."""
