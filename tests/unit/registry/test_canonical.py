import json

import pytest

from registry import canonical
from registry.canonical import Document
from registry.digests import Digest
from registry.errors import InvalidDocument


class Point(Document):
    x: int
    y: float = 0.5
    tags: tuple[str, ...] = ()


def test_the_example_of_rfc_8785() -> None:
    """Section 3.2.2 of the RFC: numbers, escapes and key order in one value."""
    text = (
        r'{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],'
        r'"string":"\u20ac$\u000F\u000aA'
        r"'\u0042\u0022\u005c\\\"\/"
        r'","literals":[null,true,false]}'
    )
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical.encode(canonical.decode(text)) == expected.encode()


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**53 + 1, {1: "a"}, "\ud800", {"a": object()}]
)
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(InvalidDocument):
        canonical.encode(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        "[NaN]",
        "[Infinity]",
        "[-Infinity]",
        "{",
        "",
        b"\xff",
        "[" * 100_000,
        '{"a":{"b":1,"b":1}}',
    ],
)
def test_loose_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidDocument):
        canonical.decode(text)


def test_a_duplicate_key_is_named() -> None:
    with pytest.raises(InvalidDocument, match="'second' appears twice"):
        canonical.decode('{"first":1,"second":2,"second":3}')


def test_documents_are_closed_frozen_and_strict() -> None:
    assert Point.parse('{"x":1,"tags":["a"]}') == Point(x=1, tags=("a",))
    with pytest.raises(InvalidDocument, match="z: Extra"):
        Point.parse('{"x":1,"z":2}')
    with pytest.raises(InvalidDocument):
        Point.parse('{"x":"1"}')
    with pytest.raises(ValueError, match="frozen"):
        setattr(Point(x=1), "x", 2)  # noqa: B010 (a plain assignment is refused by the type checker already)


def test_all_faults_of_a_document_come_at_once() -> None:
    with pytest.raises(InvalidDocument, match=r"x: .*; y: "):
        Point.parse('{"x":"one","y":"two"}')


def test_identity_does_not_depend_on_spelling() -> None:
    spelled = json.dumps({"y": 2.50, "tags": [], "x": 1}, indent=3)
    assert Point.parse(spelled).identity() == Digest.of(b'{"tags":[],"x":1,"y":2.5}')
