"""One vLLM, started, loaded, attested and supervised by the agent beside it."""
