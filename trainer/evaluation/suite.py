"""What to ask: a file of cases, each with the facts its answer must repeat and what else it must satisfy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from registry.digests import Digest
from trainer.datasets.conversations import Message, read_messages, unknown_key
from trainer.datasets.lines import Reading

_KEYS: Final = ("id", "messages", "facts", "expect", "tags")


@dataclass(frozen=True, slots=True)
class Case:
    """One question. ``expect`` is a JSON Schema fragment; ``tags`` (``intent:transfer``) group results."""

    id: str
    messages: tuple[Message, ...]
    facts: dict[str, str]
    expect: dict[str, Any] | None
    tags: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Suite:
    """A checked file of cases. ``digest`` is of its bytes."""

    name: str
    digest: Digest
    cases: tuple[Case, ...]


def load_suite(path: Path) -> Suite:
    """Every case of ``path``; raises DataInvalid with all faults."""
    reading = Reading(path)
    cases: list[Case] = []
    first: dict[str, int] = {}
    for line, value in reading.objects:
        faults, messages = _check(value)
        name = value.get("id")
        if isinstance(name, str) and first.setdefault(name, line) != line:
            faults.append(f"the id {name[:80]!r} stands on line {first[name]} already")
        for what in faults:
            reading.fault(line, what)
        if not faults:
            cases.append(
                Case(
                    id=value["id"],
                    messages=messages,
                    facts=dict(value.get("facts") or {}),
                    expect=value.get("expect"),
                    tags=tuple(value.get("tags") or ()),
                    line=line,
                )
            )
    reading.refuse()
    return Suite(reading.name, reading.digest, tuple(cases))


def _check(value: dict[str, Any]) -> tuple[list[str], tuple[Message, ...]]:
    faults = [unknown_key(key, _KEYS) for key in value if key not in _KEYS]
    if not isinstance(value.get("id"), str) or not value["id"]:
        faults.append("id must be text")
    found, messages = read_messages(value.get("messages"))
    faults += found
    if not found and messages[-1].role != "user":
        faults.append("messages must end with the user's question")
    facts = value.get("facts") or {}
    if not isinstance(facts, dict) or not all(isinstance(fact, str) for fact in facts.values()):
        faults.append("facts must map names to text")
    tags = value.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        faults.append("tags must be a list of text")
    if value.get("expect") is not None and (trouble := schema_fault(value["expect"])) is not None:
        faults.append(f"expect {trouble}")
    if not facts and value.get("expect") is None:
        faults.append("asks for nothing: give facts, expect or both")
    return faults, messages


def schema_fault(schema: Any) -> str | None:
    """Why ``schema`` is not a JSON Schema, or None. A schema may not point outside itself."""
    import jsonschema

    if not isinstance(schema, dict):
        return "must be a JSON Schema object"
    if (ref := _outward(schema)) is not None:
        return f"points outside itself ({ref[:80]})"
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        return f"is not a JSON Schema: {error.message[:200]}"
    return None


def _outward(value: Any) -> str | None:
    if isinstance(value, dict):
        ref = value.get("$ref")
        if isinstance(ref, str) and not ref.startswith("#"):
            return ref
        return next((found for part in value.values() if (found := _outward(part))), None)
    if isinstance(value, list):
        return next((found for part in value if (found := _outward(part))), None)
    return None
