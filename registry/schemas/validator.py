"""A schema, ready to judge values: the one validator of the policy lint and of the router.

jsonschema-rs, because ``jsonschema`` took 47 µs for an ordinary answer where this takes 1.5 µs. A property
test holds both to the same verdicts; where they differ on purpose (docs/reference/policies.md) this one is
the stricter, or the one that agrees with the engine.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jsonschema_rs

from registry.errors import InvalidDocument
from registry.schemas.times import is_date_time, is_time
from registry.schemas.unicode_patterns import spelled_out

MOST_REGEX_BYTES = 10 * 2**20
"""Of a compiled pattern; ``\\w{1000}`` needs 5 MB."""
_ONE_SCHEMA = ("items", "additionalProperties")
_MANY_SCHEMAS = ("anyOf", "allOf", "prefixItems")
_NAMED_SCHEMAS = ("properties", "$defs")


class Validator:
    """Immutable, and cheap to ask."""

    __slots__ = ("_is_valid",)

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises InvalidDocument for what is no schema, or refers to something outside itself."""
        # jsonschema-rs 0.60 takes "12:0/:00Z" for a time; its other formats passed a test against their RFCs.
        formats: dict[str, Callable[[str], bool]] = {"time": is_time, "date-time": is_date_time}
        try:
            compiled = jsonschema_rs.Draft202012Validator(
                _prepared(schema, formats),
                validate_formats=True,
                formats=formats,
                # Linear time whatever the pattern: an answer is text that a model wrote.
                pattern_options=jsonschema_rs.RegexOptions(size_limit=MOST_REGEX_BYTES),
                offline=True,  # a $ref is never fetched
            )
        except (ValueError, jsonschema_rs.ReferencingError, RecursionError, re.error):
            raise InvalidDocument("not a JSON schema that can be applied") from None
        self._is_valid = compiled.is_valid

    def accepts(self, value: Any) -> bool:
        """Whether decoded JSON satisfies the schema; text with half a surrogate pair never does."""
        try:
            return self._is_valid(value)
        except (ValueError, RecursionError):
            return False


def _prepared(schema: Any, formats: dict[str, Callable[[str], bool]]) -> Any:
    """A copy whose patterns mean what they mean to the engine. Values in ``enum`` and the like are data."""
    if not isinstance(schema, Mapping):
        return schema
    copy: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in _ONE_SCHEMA:
            copy[keyword] = _prepared(value, formats)
        elif keyword in _MANY_SCHEMAS and isinstance(value, list | tuple):
            copy[keyword] = [_prepared(each, formats) for each in value]
        elif keyword in _NAMED_SCHEMAS and isinstance(value, Mapping):
            copy[keyword] = {name: _prepared(each, formats) for name, each in value.items()}
        else:
            copy[keyword] = value
    pattern = copy.get("pattern")
    if isinstance(pattern, str):
        spelled = spelled_out(pattern)
        if spelled is not None:
            copy["pattern"] = spelled
        else:
            del copy["pattern"]
            name = f"tenon-pattern-{len(formats)}"
            formats[name] = _python_search(pattern)
            copy["allOf"] = [*copy.get("allOf", ()), {"format": name}]
    return copy


def _python_search(pattern: str) -> Callable[[str], bool]:
    """For the patterns that cannot be spelled for the validator; ``registry.patterns`` bounds their time."""
    if pattern.endswith("$") and not pattern.endswith("\\$"):
        pattern = pattern[:-1] + r"\Z"  # Python's "$" also stands before a last newline
    compiled = re.compile(pattern)
    return lambda text: compiled.search(text) is not None
