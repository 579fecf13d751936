"""Which JSON schemas a policy may demand: those that the engine really enforces while it decodes.

An allow-list, because a keyword that the engine ignores is a promise nobody keeps. It was measured against
vLLM 0.32 with the guidance backend (llguidance 1.7): everything allowed here compiles there, and everything
that answers 400, is ignored, or means something else in the validator after decoding is refused here, when
the policy is published, instead of on a tenant's request. The list for people: docs/reference/policies.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

from registry import canonical
from registry.contradictions import check_parts
from registry.errors import InvalidDocument, UnsupportedSchema
from registry.models import Policy
from registry.pattern_work import pattern_work
from registry.patterns import pattern_fault

MAX_BYTES = 64 * 1024
"""A 5,000-value enum costs an engine 0.3 s once; a larger schema is an attack or a mistake."""
MAX_DEPTH = 24
"""Schemas inside schemas with every ``$ref`` followed: bounds what a small text can unfold to."""
MAX_COUNT = 65_536
"""Of minLength, maxItems and their like."""
MAX_PATTERN_WORK = 50_000
"""Microseconds, of all patterns of a schema: 12 MB, once for each policy that a router is asked for."""
MAX_FAULTS = 50
DIALECT = "https://json-schema.org/draft/2020-12/schema"

ONE_SCHEMA = frozenset({"items", "additionalProperties"})
MANY_SCHEMAS = frozenset({"anyOf", "allOf", "prefixItems"})
NAMED_SCHEMAS = frozenset({"properties", "$defs"})
COUNTS = frozenset({"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"})
NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
WORDS = frozenset(
    {"title", "description", "$comment", "default", "examples", "deprecated", "readOnly", "writeOnly"}
)
OTHERS = frozenset({"$schema", "$ref", "type", "enum", "const", "required", "pattern", "format"})
KEYWORDS = ONE_SCHEMA | MANY_SCHEMAS | NAMED_SCHEMAS | COUNTS | NUMBERS | WORDS | OTHERS
FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"}
)


@dataclass(frozen=True, slots=True)
class SchemaFault:
    pointer: str
    """JSON pointer (RFC 6901) of the schema that holds the keyword; empty for the root."""
    keyword: str
    why: str

    def __str__(self) -> str:
        return f"{self.pointer or '/'} {self.keyword}: {self.why}"


def check_policy(policy: Policy) -> None:
    """Raises :class:`UnsupportedSchema`, PolicyContradicts, or InvalidDocument when the schema is not even a
    JSON object."""
    if policy.json_schema is not None:
        _refuse(lint_text(policy.json_schema))
    check_parts(policy)


def lint_text(text: str) -> tuple[SchemaFault, ...]:
    """:func:`lint` of JSON text. Raises InvalidDocument when it is no JSON object."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:  # before it is parsed
        return (SchemaFault("", "schema", f"{size} bytes, more than {MAX_BYTES}"),)
    schema = canonical.decode(text)
    if not isinstance(schema, dict):
        raise InvalidDocument("the answer schema must be a JSON object")
    return lint(schema)


def check_schema(schema: dict[str, Any]) -> None:
    """Raises :class:`UnsupportedSchema` with all faults (``facts['faults']``) or returns."""
    _refuse(lint(schema))


def _refuse(faults: tuple[SchemaFault, ...]) -> None:
    if faults:
        listed = "; ".join(str(fault) for fault in faults)
        raise UnsupportedSchema(f"the schema cannot be enforced: {listed}", faults=faults)


def lint(schema: dict[str, Any]) -> tuple[SchemaFault, ...]:
    """Every reason why ``schema`` cannot be enforced, at most MAX_FAULTS, in document order."""
    try:
        size = len(canonical.encode(schema))
    except InvalidDocument as error:
        return (SchemaFault("", "schema", error.message),)
    if size > MAX_BYTES:
        return (SchemaFault("", "schema", f"{size} bytes, more than {MAX_BYTES}"),)
    if _nesting(schema) > 4 * MAX_DEPTH:  # before anything recurses into it
        return (SchemaFault("", "schema", "nested too deeply"),)
    faults = list(_walk(schema, ""))
    if not faults:
        faults = list(_heavy(schema)) or list(_validity(schema)) or list(_unfolded(schema))
    return tuple(faults[:MAX_FAULTS])


def _nesting(value: Any) -> int:
    """Levels of arrays and objects, without recursion."""
    deepest = 0
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        deepest = max(deepest, depth)
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list | tuple) else ()
        waiting.extend((child, depth + 1) for child in inner)
    return deepest


def _walk(schema: Any, at: str) -> Iterator[SchemaFault]:
    """Keyword faults of ``schema`` and all schemas inside it; ``enum`` and ``default`` values are data."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield SchemaFault(at, "schema", "must be an object or a boolean")
        return
    for keyword, value in schema.items():
        if keyword not in KEYWORDS:
            yield SchemaFault(at, keyword, "not enforced by the engine")
        elif why := _value_fault(keyword, value, root=at == ""):
            yield SchemaFault(at, keyword, why)
    for name, inner in _inside(schema):
        yield from _walk(inner, f"{at}/{name}")


def _value_fault(keyword: str, value: Any, *, root: bool) -> str:
    """Why this value of an allowed keyword cannot be enforced; empty when it can."""
    why = ""
    if keyword == "$schema" and value != DIALECT:
        why = f"only {DIALECT}"
    elif keyword == "$ref" and not (isinstance(value, str) and _definition(value) is not None):
        why = "only a local '#/$defs/name'"
    elif keyword == "$defs" and not root:
        why = "only at the root of the schema"
    elif keyword == "format" and (not isinstance(value, str) or value not in FORMATS):
        why = f"only {', '.join(sorted(FORMATS))}"
    elif keyword == "pattern":
        why = pattern_fault(value) if isinstance(value, str) else "must be a string"
    elif keyword in COUNTS and isinstance(value, int) and value > MAX_COUNT:
        why = f"more than {MAX_COUNT}"
    return why


def patterns_work(schema: Any, at: str = "") -> Iterator[tuple[str, int]]:
    """(JSON pointer, microseconds) of each ``pattern`` of an allowed schema."""
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("pattern"), str):
        yield at, pattern_work(schema["pattern"])
    for name, inner in _inside(schema):
        yield from patterns_work(inner, f"{at}/{name}")


def _heavy(schema: dict[str, Any]) -> Iterator[SchemaFault]:
    """The pattern with which it becomes too much: compiling them holds up everything else."""
    total = 0
    for at, work in patterns_work(schema):
        total += work
        if total > MAX_PATTERN_WORK:
            why = "the patterns are too large to be checked: repeat less, or use [A-Za-z0-9_] instead of \\w"
            yield SchemaFault(at, "pattern", why)
            return


def _inside(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(pointer below the schema, schema) of the schemas directly inside one."""
    for keyword, value in schema.items():
        if keyword in ONE_SCHEMA:
            yield keyword, value
        elif keyword in MANY_SCHEMAS and isinstance(value, list | tuple):
            for index, item in enumerate(value):
                yield f"{keyword}/{index}", item
        elif keyword in NAMED_SCHEMAS and isinstance(value, dict):
            for name, item in value.items():
                yield f"{keyword}/{name.replace('~', '~0').replace('/', '~1')}", item


def _validity(schema: dict[str, Any]) -> Iterator[SchemaFault]:
    """Faults against the Draft 2020-12 meta-schema: wrong types, negative counts, a repeated ``required``."""
    for error in Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema):
        *at, keyword = [str(part) for part in error.absolute_path] or [""]
        yield SchemaFault("".join(f"/{part}" for part in at), keyword or "schema", error.message[:200])


def _definition(ref: str) -> str | None:
    """The name in ``#/$defs/name``; None for every other ref (remote, an anchor, a deeper pointer)."""
    head, _, name = ref.partition("#/$defs/")
    if head or not name or "/" in name or "%" in name:
        return None
    return name.replace("~1", "/").replace("~0", "~")


def _unfolded(schema: dict[str, Any]) -> Iterator[SchemaFault]:
    """Missing definitions, refs that reach themselves (the engine answers nothing then), too much depth."""
    definitions: dict[str, Any] = schema.get("$defs", {})
    depths: dict[str, int] = {}  # of definitions whose walk is finished
    faults: list[SchemaFault] = []

    def depth(part: Any, at: str, trail: tuple[str, ...]) -> int:
        if not isinstance(part, dict):
            return 0
        deepest = 0
        if "$ref" in part:
            name = _definition(part["$ref"])
            if name is None or name not in definitions:
                faults.append(SchemaFault(at, "$ref", f"nothing is defined at {part['$ref']}"))
            elif name in trail:
                faults.append(SchemaFault(at, "$ref", f"refers to itself: {' -> '.join((*trail, name))}"))
            else:
                if name not in depths:
                    depths[name] = depth(definitions[name], f"/$defs/{name}", (*trail, name))
                deepest = depths[name]
        for below, inner in _inside(part):
            if not below.startswith("$defs/"):
                deepest = max(deepest, depth(inner, f"{at}/{below}", trail))
        return deepest + 1

    whole = depth(schema, "", ())
    for name, definition in definitions.items():
        if name not in depths:  # unused, and still part of what was published
            depths[name] = depth(definition, f"/$defs/{name}", (name,))
    yield from faults
    if not faults and max(whole, *depths.values(), 0) > MAX_DEPTH:
        yield SchemaFault("", "schema", f"unfolds to more than {MAX_DEPTH} levels")
