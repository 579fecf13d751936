"""A shortest text that a schema's ``pattern`` accepts, for answers of the fake engine."""

import re
from collections.abc import Callable
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

_CLASSES = {codes.CATEGORY_DIGIT: "0", codes.CATEGORY_WORD: "a", codes.CATEGORY_SPACE: " "}


def shortest_match(pattern: str) -> str:
    """Raises ValueError for a construct outside ``registry.patterns`` (nothing published has one)."""
    text = _sequence(parser.parse(pattern))
    if re.search(pattern, text) is None:
        raise ValueError(f"no text found for {pattern!r}")
    return text


def _sequence(items: Any) -> str:
    return "".join(_item(code, value) for code, value in items)


def _item(code: Any, value: Any) -> str:
    if code not in _SPELLED:
        raise ValueError(f"no text for {code}")
    return _SPELLED[code](value)


def _one_of(choices: Any) -> str:
    (first, value), *_ = choices
    if first is codes.NEGATE:
        refused = "".join(_one_of([choice]) for choice in choices[1:])
        return next(letter for letter in "a0_ -.xX" if letter not in refused)
    if first is codes.RANGE:
        return chr(value[0])
    if first is codes.CATEGORY:
        return _CLASSES.get(value, "a")
    return chr(value)


_SPELLED: dict[Any, Callable[[Any], str]] = {
    codes.LITERAL: chr,
    codes.NOT_LITERAL: lambda letter: "b" if letter == ord("a") else "a",
    codes.ANY: lambda _: "a",
    codes.AT: lambda _: "",
    codes.IN: _one_of,
    codes.MAX_REPEAT: lambda repeat: _sequence(repeat[2]) * int(repeat[0]),
    codes.MIN_REPEAT: lambda repeat: _sequence(repeat[2]) * int(repeat[0]),
    codes.SUBPATTERN: lambda group: _sequence(group[-1]),
    codes.BRANCH: lambda branch: _sequence(branch[1][0]),
}
