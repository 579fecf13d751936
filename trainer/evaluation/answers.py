"""Reading what a model said. Nothing trusts it to have answered in JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

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


def satisfies(answer: Any, schema: Draft202012Validator) -> bool:
    """``answer`` as ``parse_answer`` gives it; what is not JSON satisfies nothing."""
    return answer is not NOT_JSON and bool(schema.is_valid(answer))


def facts_in(answer: Any, facts: Mapping[str, str]) -> Iterator[tuple[Any, str]]:
    """(what stands in the field of its name, the fact), for every fact: they must be equal exactly."""
    fields = answer if isinstance(answer, dict) else {}
    return ((fields.get(name), fact) for name, fact in facts.items())
