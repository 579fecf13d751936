"""values.schema.json is closed, complete and described, and is itself a valid schema."""

from collections.abc import Iterator
from typing import Any

import jsonschema

from tests.chart.schema import defaults, schema


def objects(part: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object with named properties, with the value's dotted name."""
    if "properties" in part:
        yield path, part
        for name, inner in part["properties"].items():
            yield from objects(inner, f"{path}.{name}" if path else name)


def leaves(part: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, inner in part.get("properties", {}).items():
        dotted = f"{path}.{name}" if path else name
        if "properties" in inner:
            yield from leaves(inner, dotted)
        else:
            yield dotted


def values(part: dict[str, Any], path: str = "") -> Iterator[str]:
    described = {name for name, _ in objects(schema())}
    for name, inner in part.items():
        dotted = f"{path}.{name}" if path else name
        if dotted in described:
            yield from values(inner, dotted)
        else:
            yield dotted


def test_it_is_a_draft_07_schema() -> None:
    assert schema()["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(schema())


def test_no_object_takes_unknown_keys() -> None:
    for name, part in objects(schema()):
        assert part["additionalProperties"] is False, name


def test_every_value_is_described_and_has_a_default() -> None:
    assert set(leaves(schema())) - {"global"} == set(values(defaults()))
    for name, part in objects(schema()):
        for key, inner in part["properties"].items():
            assert inner.get("description"), f"{name}.{key}"


def test_the_defaults_lack_only_what_nobody_can_guess() -> None:
    faults = {
        ".".join(map(str, fault.absolute_path))
        for fault in jsonschema.Draft7Validator(schema()).iter_errors(defaults())
    }
    assert faults == {"secrets.existingSecret", "engine.base", "engine.baseName"}
