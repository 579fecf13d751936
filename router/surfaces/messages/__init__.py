"""POST /v1/messages: Anthropic's Messages API.

Asked of an engine as chat completions. vLLM's own ``/v1/messages`` takes a LoRA name and a salt, too, but it
is a second face of the same chat with another set of answers to check, and it forces no tool to be strict.
"""
