"""CSV has only text: what a cell means by the name of its column."""

import json
from typing import Any, Final

from registry import canonical
from registry.errors import InvalidDocument

_JSON: Final = frozenset({"messages", "tools", "completions", "labels", "facts", "expect", "columns"})
_EITHER: Final = frozenset({"prompt", "completion", "chosen", "rejected"})
"""Text, unless it is a JSON list of messages."""
_MAY_BE_EMPTY: Final = frozenset(
    {"system", "tags", "weight", "tools", "facts", "expect", "answer", "columns", "id"}
)


def from_cell(column: str, text: str) -> tuple[str | None, Any]:  # noqa: PLR0911 - a table
    """(fault, value); a value of None stands for an empty cell that may be empty."""
    if not text.strip() and column in _MAY_BE_EMPTY:
        return None, None
    if column == "tags" and not text.lstrip().startswith("["):
        return None, [tag.strip() for tag in text.split(";") if tag.strip()]
    if column in _JSON or column == "tags":
        try:
            return None, canonical.decode(text)
        except InvalidDocument:
            return f"{column} must be JSON in its cell", None
    if column == "weight":
        try:
            return None, float(text)
        except ValueError:
            return "weight must be a number", None
    if column in _EITHER and text.lstrip().startswith("["):
        return None, _messages(text)
    return None, text


def _messages(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    listed = (
        isinstance(value, list) and value and all(isinstance(item, dict) and "role" in item for item in value)
    )
    return value if listed else text
