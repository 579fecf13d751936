"""What the router costs in front of an engine that costs nothing: ``python -m bench.router``."""
