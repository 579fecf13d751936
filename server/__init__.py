"""The composition root: settings, engines beside vLLM, HTTP control plane, CLI and demo."""
