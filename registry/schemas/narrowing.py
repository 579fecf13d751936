"""Does one schema accept only what another accepts?

Sound and incomplete: True is a proof, False is "not seen". A client's own schema replaces a policy's in the
decoder only after a True, and the answer is validated against both all the same. For schemas that
``registry.policies`` allows: no recursion, no ``not``, no ``oneOf``.
"""

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from registry.errors import InvalidDocument
from registry.policies import patterns_work
from registry.schemas.validator import Validator

Schema = Mapping[str, Any]
Parts = tuple[Schema, ...]
"""A conjunction: a value satisfies it when it satisfies every part. No part has ``$ref`` or ``allOf``."""
MOST_STEPS = 20_000
"""About 40 ms; two ordinary schemas need some hundred."""
_STEP = 2
"""Microseconds."""
_COMPILE_STEPS = 20
"""A small validator's."""
_NEVER: Schema = {"enum": []}
_TYPES = {
    "null": {"null"}, "boolean": {"boolean"}, "object": {"object"}, "array": {"array"},
    "string": {"string"}, "integer": {"integer"}, "number": {"integer", "fraction"},
}  # fmt: skip
_ALL_TYPES = frozenset().union(*_TYPES.values())
_LEAST = {"minLength": "string", "minItems": "array", "minProperties": "object"}
_MOST = {"maxLength": "string", "maxItems": "array", "maxProperties": "object"}


def narrows(own: Schema, policy: Schema) -> bool:
    """Whether all that satisfies ``own`` was seen to satisfy ``policy``. Both must be allowed schemas."""
    try:
        return _Comparison(own, policy).run()
    except (_Unsure, InvalidDocument, RecursionError):
        return False


class _Unsure(Exception):
    pass


class _Comparison:
    def __init__(self, own: Schema, policy: Schema) -> None:
        self._own, self._policy = own, policy
        self._steps = 0

    def run(self) -> bool:
        return self._within(
            self._parts(self._own, self._own), self._parts(self._policy, self._policy), self._policy
        )

    def _step(self, steps: int = 1) -> None:
        self._steps += steps
        if self._steps > MOST_STEPS:
            raise _Unsure

    def _parts(self, schema: Any, root: Schema) -> Parts:
        """``$ref`` and ``allOf`` resolved into one conjunction."""
        self._step()
        if schema is True:
            return ()
        if schema is False:
            return (_NEVER,)
        found: list[Schema] = []
        plain = {name: value for name, value in schema.items() if name not in ("$ref", "allOf", "$defs")}
        if plain:
            found.append(plain)
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/$defs/").replace("~1", "/").replace("~0", "~")
            found.extend(self._parts(root["$defs"][name], root))
        for each in schema.get("allOf", ()):
            found.extend(self._parts(each, root))
        return tuple(found)

    def _all(self, schemas: list[Any]) -> Parts:
        return tuple(part for schema in schemas for part in self._parts(schema, self._own))

    def _within(self, own: Parts, policy: Parts, root: Schema) -> bool:
        return all(self._within_part(own, part, root) for part in policy)

    def _within_part(self, own: Parts, part: Schema, root: Schema) -> bool:
        """``own`` against one part of the policy: directly, or case by case."""
        self._step()
        types = _types(own)
        if not types:
            return True  # nothing satisfies own
        values = _values(own, types)
        if values is not None:
            whole = {**part, "$defs": root.get("$defs", {})}
            self._step(_COMPILE_STEPS + sum(work for _, work in patterns_work(whole)) // _STEP)
            judge = Validator(whole)
            return all(judge.accepts(value) for value in values)
        if self._directly(own, types, part, root):
            return True
        for index, each in enumerate(own):
            if "anyOf" in each:
                rest = {name: value for name, value in each.items() if name != "anyOf"}
                others = (*own[:index], rest, *own[index + 1 :])
                return all(
                    self._within_part((*others, *self._parts(branch, self._own)), part, root)
                    for branch in each["anyOf"]
                )
        if len(types) > 1 and types != {"integer", "fraction"}:
            kinds = {"number" if kind == "fraction" else kind for kind in types}
            kinds -= {"integer"} if "number" in kinds else set()
            return all(self._within_part((*own, {"type": kind}), part, root) for kind in sorted(kinds))
        return False

    def _directly(self, own: Parts, types: frozenset[str], part: Schema, root: Schema) -> bool:
        if "enum" in part or "const" in part:
            return False  # own is not finite
        if not types <= _types((part,)):
            return False
        if "anyOf" in part:
            branches = (self._parts(branch, root) for branch in part["anyOf"])
            if not any(self._within(own, branch, root) for branch in branches):
                return False
        numbers = not types & {"integer", "fraction"} or _numbers(own, types, part)
        strings = "string" not in types or _strings(own, part)
        return (
            numbers
            and strings
            and _counts(own, types, part)
            and ("array" not in types or self._arrays(own, part, root))
            and ("object" not in types or self._objects(own, part, root))
        )

    def _arrays(self, own: Parts, part: Schema, root: Schema) -> bool:
        if "items" not in part and "prefixItems" not in part:
            return True
        fixed = max(len(each.get("prefixItems", ())) for each in (*own, part))
        # One position past all prefixes stands for every later one.
        reachable = min(fixed + 1, _most(own, "maxItems"), *_ends(own))
        for position in range(int(reachable)):
            mine = self._all([_item(each, position) for each in own])
            if not self._within(mine, self._parts(_item(part, position), root), root):
                return False
        return True

    def _objects(self, own: Parts, part: Schema, root: Schema) -> bool:
        demanded = {name for each in own for name in each.get("required", ())}
        if not demanded.issuperset(part.get("required", ())):
            return False
        if "properties" not in part and "additionalProperties" not in part:
            return True
        named = {name for each in (*own, part) for name in each.get("properties", {})}
        for name in [*sorted(named), None]:
            mine = self._all([_property(each, name) for each in own])
            if not self._within(mine, self._parts(_property(part, name), root), root):
                return False
        return True


def _types(parts: Parts) -> frozenset[str]:
    found = _ALL_TYPES
    for part in parts:
        if "type" in part:
            given = part["type"]
            names = [given] if isinstance(given, str) else given
            found &= frozenset().union(*(_TYPES[name] for name in names))
        if part is _NEVER:
            return frozenset()
    return found


def _values(own: Parts, types: frozenset[str]) -> list[Any] | None:
    """All values that can satisfy ``own`` (some may not), if they can be listed."""
    for part in own:
        if "const" in part:
            return [part["const"]]
        if "enum" in part:
            return list(part["enum"])
    if types <= {"null", "boolean"}:
        return [*([None] if "null" in types else []), *([True, False] if "boolean" in types else [])]
    return None


def _bounds(own: Parts, keyword: str) -> Iterator[Any]:
    return (part[keyword] for part in own if keyword in part)


def _most(own: Parts, keyword: str) -> float:
    return min(_bounds(own, keyword), default=math.inf)


def _numbers(own: Parts, types: frozenset[str], part: Schema) -> bool:
    low = max(_bounds(own, "minimum"), default=-math.inf)
    above = max(_bounds(own, "exclusiveMinimum"), default=-math.inf)
    high = min(_bounds(own, "maximum"), default=math.inf)
    below = min(_bounds(own, "exclusiveMaximum"), default=math.inf)
    over, under = part.get("exclusiveMinimum"), part.get("exclusiveMaximum")
    kept = (
        max(low, above) >= part.get("minimum", -math.inf),
        over is None or low > over or above >= over,
        min(high, below) <= part.get("maximum", math.inf),
        under is None or high < under or below <= under,
    )
    return all(kept) and _multiples(own, types, part)


def _multiples(own: Parts, types: frozenset[str], part: Schema) -> bool:
    """Exact for integers; for fractions only the same number, as validators round."""
    if "multipleOf" not in part:
        return True
    step = part["multipleOf"]
    mine = list(_bounds(own, "multipleOf"))
    if step in mine or (step == 1 and types <= {"integer"}):
        return True
    return isinstance(step, int) and any(
        isinstance(each, int) and Fraction(each, step).denominator == 1 for each in mine
    )


def _strings(own: Parts, part: Schema) -> bool:
    """A pattern or a format of the policy's must stand in ``own`` as it is."""
    return all(
        keyword not in part or part[keyword] in list(_bounds(own, keyword))
        for keyword in ("pattern", "format")
    )


def _counts(own: Parts, types: frozenset[str], part: Schema) -> bool:
    for keyword, kind in _LEAST.items():
        if keyword in part and kind in types:
            least = max(_bounds(own, keyword), default=0)
            if keyword == "minProperties":
                least = max(least, len({name for each in own for name in each.get("required", ())}))
            if least < part[keyword]:
                return False
    for keyword, kind in _MOST.items():
        if keyword in part and kind in types:
            most = _most(own, keyword)
            if keyword == "maxProperties":
                closed = (len(each.get("properties", {})) for each in own if _closed(each))
                most = min([most, *closed])
            if keyword == "maxItems":
                most = min([most, *_ends(own)])
            if most > part[keyword]:
                return False
    return True


def _closed(part: Schema) -> bool:
    return part.get("additionalProperties") is False


def _ends(own: Parts) -> list[int]:
    """Where a part says that an array is over."""
    return [len(part.get("prefixItems", ())) for part in own if part.get("items") is False]


def _item(part: Schema, position: int) -> Any:
    prefix = part.get("prefixItems", ())
    return prefix[position] if position < len(prefix) else part.get("items", True)


def _property(part: Schema, name: str | None) -> Any:
    """What ``part`` asks of a property; None stands for one that nobody names."""
    properties = part.get("properties", {})
    return properties[name] if name in properties else part.get("additionalProperties", True)
