"""What patterns cost the validator, and how much of it a schema may ask for."""

from typing import Any

import pytest

from registry.pattern_work import pattern_work
from registry.policies import MAX_PATTERN_WORK, lint
from registry.schemas.narrowing import narrows
from registry.schemas.validator import Validator


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [
        ("", 100, 100),
        ("abc", 103, 103),
        (r"^\d{4}-\d\d-\d\d$", 250, 350),
        (r"^[A-Z]{2}\d{2}[A-Z0-9]{11,30}$", 150, 250),
        (r"^\w{1,64}$", 16_000, 17_000),
        (r"\w{64}", 16_000, 17_000),
        (r"\w{63,}", 16_000, 17_000),
        (r"(?:\w{8}){8}", 16_000, 17_000),
        (r"((\w\w){4}|x){8}", 16_000, 17_500),
        (r"[\w.-]{64}", 16_000, 17_500),
        (r"[^\W]{64}", 16_000, 17_500),
        (r"[]\w]{64}", 16_000, 17_500),
        (r"[\]\w]{64}", 16_000, 17_500),
        (r"\w+", 600, 700),
        (r"\w?", 350, 370),
        (r"\[{64}", 150, 170),
        (r"\\{64}", 150, 170),
        (r".{500}", 3_500, 3_700),
        (r"é{500}", 3_500, 3_700),
    ],
)  # fmt: skip
def test_work_is_estimated_from_the_text(pattern: str, least: int, most: int) -> None:
    assert least <= pattern_work(pattern) <= most


def strings(pattern: str, count: int) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {f"p{at}": {"type": "string", "pattern": pattern} for at in range(count)},
    }


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        (strings(r"\w{64}", 3), "/properties/p2"),
        (strings(r"^.{1,500}$", 20), "/properties/p13"),
        ({"type": "string", "pattern": r"^\w{0,1000}$"}, ""),
        ({"$defs": {"a": {"items": {"anyOf": [{"pattern": r"\w{200}"}]}}}}, "/$defs/a/items/anyOf/0"),
    ],
)
def test_patterns_that_hold_a_router_up_are_refused_when_published(schema: Any, pointer: str) -> None:
    assert [(fault.pointer, fault.keyword) for fault in lint(schema)] == [(pointer, "pattern")]


def test_the_heaviest_that_may_be_published_can_be_applied() -> None:
    schema = strings(r"^\w{1,180}$", 1)
    assert pattern_work(r"^\w{1,180}$") > MAX_PATTERN_WORK * 0.9
    assert lint(schema) == ()
    assert Validator(schema).accepts({"p0": "é" * 180})
    assert not Validator(schema).accepts({"p0": "é" * 181})


def test_values_are_data_and_no_patterns() -> None:
    assert lint({"enum": [{"pattern": r"\w{1000}"}]}) == ()


def test_a_comparison_does_not_compile_heavy_patterns_again_and_again() -> None:
    policy = {"type": "string", "pattern": r"^\w{1,64}$"}
    assert narrows({"enum": ["a"]}, policy)
    assert narrows({"anyOf": [{"const": "a"}, {"const": "b"}]}, policy)
    assert not narrows({"anyOf": [{"const": str(at)} for at in range(40)]}, policy)
