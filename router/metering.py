"""meter: what an answer used, as its engine counted it."""

from typing import Any, NamedTuple, TypeGuard


class Usage(NamedTuple):
    prompt: int
    completion: int

    def public(self) -> dict[str, int]:
        """OpenAI's spelling. Details (cached tokens) stay here: they tell what else was asked before."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


def read_usage(value: Any) -> Usage | None:
    """The ``usage`` of an engine's answer; None when it is missing or makes no sense."""
    if not isinstance(value, dict):
        return None
    prompt, completion = value.get("prompt_tokens"), value.get("completion_tokens", 0)
    if not _count(prompt) or not _count(completion):
        return None
    return Usage(prompt, completion)


def _count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
