"""The control plane over HTTP: what routers and engine agents read and report."""
