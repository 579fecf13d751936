"""Reading what a model said. Nothing trusts it to have answered in JSON."""

from dataclasses import dataclass
from typing import Any

from registry import canonical
from registry.errors import InvalidDocument


@dataclass(frozen=True, slots=True)
class _NotJson:
    """Unlike every JSON value, ``None`` included."""


NOT_JSON = _NotJson()


def parse_answer(text: str) -> Any:
    """The JSON value, or NOT_JSON. Strict: text around it, a key twice or NaN is not JSON."""
    try:
        return canonical.decode(text)
    except InvalidDocument:
        return NOT_JSON
