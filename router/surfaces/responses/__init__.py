"""POST /v1/responses: OpenAI's Responses API, without anything kept between two requests.

Asked of an engine as chat completions. vLLM's own ``/v1/responses`` is not used: it keeps answers and whole
conversations in the engine's memory for whoever knows an id (``store`` is true unless told otherwise, its
tables know no tenant and are never emptied), and its answers would need a second set of checks.
"""
