"""POST /v1/completions: text that goes on, with neither a chat template nor roles."""
