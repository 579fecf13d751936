"""Random schemas of every keyword that policies allow, near-copies of them, and values to try on them.

From a seeded ``random.Random`` and not from strategies: these took Hypothesis 30 to 90 ms each, and what the
properties need is many.
"""

import itertools
from random import Random
from typing import Any

SCALARS: list[Any] = [
    None, True, False, 0, 1, 2, 3, 4, 6, -1, 0.5, 1.5, 2.0, 0.25, 2**63, 2**70, "", "a", "b", "ab", "aab",
    "b1", "é", "2024-02-29", "a@b.c", "x" * 5,
]  # fmt: skip
_ARRAYS = [list(items) for size in range(4) for items in itertools.product([True, 1, 1.5, "a"], repeat=size)]
_OBJECTS = [
    {name: value for name, value in zip("abc", values, strict=True) if value is not ...}
    for values in itertools.product([..., 0, 1, 3, "a", None, {"a": 1}, [1]], repeat=3)
]
VALUES: list[Any] = [*SCALARS, *_ARRAYS, *_OBJECTS, [{"a": 1}], [[1], ["a"]], {"d": 1}]
TYPES = ["null", "boolean", "integer", "number", "string", "array", "object"]
_NUMBERS: list[Any] = [-1, 0, 1, 2, 3, 0.5, 1.5, 2**63, 2**70]
_COUNTS = {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
_LIMITS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
_KEYWORDS = [
    "type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength",
    "maxLength", "pattern", "format", "minItems", "maxItems", "items", "prefixItems", "minProperties",
    "maxProperties",
    "additionalProperties", "properties", "required", "enum", "const", "anyOf", "allOf", "$ref",
]  # fmt: skip


def document(random: Random) -> dict[str, Any]:
    """A whole schema, with definitions."""
    body = some(random, 3)
    found = body if isinstance(body, dict) else {"type": "object"}
    return found | {"$defs": {name: some(random, 1, refs=False) for name in "xy"}}


def some(random: Random, depth: int, *, refs: bool = True) -> Any:
    if depth == 0 or random.random() < 0.08:
        return random.random() < 0.75
    wanted = random.sample(_KEYWORDS, random.randint(1, 4))
    if random.random() < 0.6 and "type" not in wanted:
        wanted[0] = "type"
    return {
        keyword: _value(random, keyword, depth, refs) for keyword in wanted if refs or keyword != "$ref"
    } or True


def _value(random: Random, keyword: str, depth: int, refs: bool) -> Any:  # noqa: PLR0911 (one per keyword)
    def inner() -> Any:
        return some(random, depth - 1, refs=refs)

    if keyword == "type":
        few = random.sample(TYPES, random.randint(1, 3))
        return few if len(few) > 1 else few[0]
    if keyword in _LIMITS:
        return random.choice(_NUMBERS)
    if keyword == "multipleOf":
        return random.choice([1, 2, 3, 4, 0.5])
    if keyword in _COUNTS:
        return random.randint(0, 3)
    if keyword == "pattern":
        return random.choice(["a", "^a", "b$", r"^\w+$", r"^[^\W\d]+$"])
    if keyword == "format":
        return random.choice(["date", "ipv4", "uuid"])
    if keyword in ("items", "additionalProperties"):
        return inner()
    if keyword in ("anyOf", "allOf", "prefixItems"):
        return [inner() for _ in range(random.randint(1, 2))]
    if keyword == "properties":
        return {name: inner() for name in random.sample("abc", random.randint(0, 3))}
    if keyword == "required":
        return random.sample("abc", random.randint(0, 2))
    if keyword == "enum":
        return random.sample(VALUES, random.randint(1, 3))
    if keyword == "const":
        return random.choice(VALUES)
    return random.choice(["#/$defs/x", "#/$defs/y"])


def near(random: Random, schema: Any) -> Any:
    """Close to ``schema`` and often narrower: what clients really send."""
    if not isinstance(schema, dict):
        return schema if random.random() < 0.6 else some(random, 1, refs=False)
    copy: dict[str, Any] = {}
    for keyword, value in schema.items():
        changes = random.random()
        if keyword in _COUNTS | _LIMITS:
            step = 1 if keyword.startswith(("min", "exclusiveMin")) else -1
            copy[keyword] = max(0, value + random.choice([0, step, step, -step]))
        elif keyword in ("items", "additionalProperties"):
            copy[keyword] = near(random, value)
        elif keyword in ("anyOf", "allOf", "prefixItems"):
            kept = value[:1] if changes < 0.3 and keyword == "anyOf" else value
            copy[keyword] = [near(random, each) for each in kept]
        elif keyword in ("properties", "$defs"):
            copy[keyword] = {name: near(random, each) for name, each in value.items()}
        elif keyword == "enum" and changes < 0.5:
            copy[keyword] = value[:1]
        elif changes < 0.9 or keyword == "$ref":
            copy[keyword] = value
    extra = some(random, 1, refs=False)
    return {**extra, **copy} if isinstance(extra, dict) and random.random() < 0.5 else copy
