"""narrows() is sound: whatever it says True to, all that the client's schema accepts the policy's accepts."""

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.policies import lint
from registry.schemas.narrowing import narrows
from registry.schemas.validator import Validator
from tests.support.random_schemas import VALUES, document, near

seeds = st.integers(0, 2**32)


def compared(random: Random) -> str:
    """One pair of schemas, tried on every value."""
    policy = document(random)
    own = near(random, policy) if random.random() < 0.8 else document(random)
    if lint(own) or lint(policy):
        return "not allowed"
    if not narrows(own, policy):
        return "not seen"
    mine, theirs = Validator(own), Validator(policy)
    accepted = [value for value in VALUES if mine.accepts(value)]
    for value in accepted:
        assert theirs.accepts(value), (own, policy, value)
    if own == policy or not accepted:
        return "trivial"
    return "narrows"


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_whatever_own_accepts_the_policy_accepts(seed: int) -> None:
    random = Random(seed)
    for _ in range(40):
        compared(random)


def test_the_property_is_tried_on_schemas_that_do_narrow() -> None:
    random = Random(5)
    outcomes = Counter(compared(random) for _ in range(600))
    assert outcomes["narrows"] > 60, outcomes
    assert outcomes["not seen"] > 60, outcomes


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_every_schema_narrows_the_one_that_allows_all_and_nothing_narrows_every_schema(seed: int) -> None:
    schema = document(Random(seed))
    if not lint(schema):
        assert narrows(schema, {})
        assert narrows({"allOf": [False]}, schema)


ORDER = {
    "type": "object",
    "properties": {
        "side": {"enum": ["buy", "sell"]},
        "amount": {"type": "number", "minimum": 0, "maximum": 1000},
        "legs": {"type": "array", "items": {"$ref": "#/$defs/leg"}, "maxItems": 4},
        "note": {"anyOf": [{"type": "string", "maxLength": 80}, {"type": "null"}]},
        "iban": {"type": "string", "pattern": "^[A-Z]{2}[0-9]+$"},
    },
    "required": ["side"],
    "additionalProperties": False,
    "$defs": {"leg": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
}
NESTED = {name: value for name, value in ORDER.items() if name != "$defs"}


def changed(**properties: Any) -> dict[str, Any]:
    return ORDER | {"properties": ORDER["properties"] | properties}  # type: ignore[operator]


@pytest.mark.parametrize(
    "own",
    [
        ORDER,
        changed(side={"const": "buy"}),
        changed(side={"enum": ["buy"], "type": "string"}),
        changed(amount={"type": "integer", "minimum": 10, "exclusiveMaximum": 1000}),
        changed(note={"type": "null"}),
        changed(note={"type": ["string", "null"], "maxLength": 10}),
        changed(note={"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 80}]}),
        changed(legs={"type": "array", "items": False}),
        changed(legs={"type": "array", "maxItems": 1, "prefixItems": [{"$ref": "#/$defs/leg"}]}),
        changed(iban={"allOf": [{"type": "string"}, {"pattern": "^[A-Z]{2}[0-9]+$"}], "maxLength": 34}),
        ORDER | {"required": ["side", "amount"], "title": "mine"},
        {"anyOf": [NESTED, NESTED | {"required": ["side", "note"]}], "$defs": ORDER["$defs"]},
        {"const": {"side": "buy", "amount": 3}},
    ],
)
def test_narrower_schemas_are_seen(own: dict[str, Any]) -> None:
    assert not lint(own)
    assert narrows(own, ORDER)


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"type": "object"},
        changed(side={"type": "string"}),
        changed(side={"enum": ["buy", "hold"]}),
        changed(amount={"type": "number", "minimum": -1, "maximum": 1000}),
        changed(amount={"type": "number", "maximum": 1000}),
        changed(extra={"type": "string"}),
        changed(note={"type": ["string", "null"]}),
        changed(iban={"type": "string", "pattern": "^[A-Z]{2}"}),
        changed(legs={"type": "array", "maxItems": 4}),
        {name: value for name, value in ORDER.items() if name != "required"},
        ORDER | {"additionalProperties": True},
        {"anyOf": [NESTED, {"type": "string"}], "$defs": ORDER["$defs"]},
        {"const": {"side": "hold"}},
    ],
)
def test_wider_schemas_are_not(own: dict[str, Any]) -> None:
    assert not lint(own)
    assert not narrows(own, ORDER)


def test_an_explosion_is_cut_short() -> None:
    laughs = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 3} for n in range(10)}
    schema = {"$ref": "#/$defs/d0", "$defs": laughs | {"d10": {"type": "string"}}}
    assert not lint(schema)
    assert not narrows(schema, schema)
