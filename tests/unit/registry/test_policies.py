import json
import re
from typing import Any

import pytest

from registry.errors import InvalidDocument, UnsupportedSchema
from registry.models import Policy
from registry.patterns import pattern_fault
from registry.policies import MAX_BYTES, MAX_DEPTH, check_policy, check_schema, lint

ANSWER: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "decision",
    "type": "object",
    "properties": {
        "decision": {"enum": ["approve", "reject", {"not": "a keyword here, but data"}]},
        "amount": {"type": "number", "minimum": 0, "multipleOf": 0.01},
        "iban": {"type": "string", "pattern": r"^[A-Z]{2}\d{2}[A-Z0-9]{10,30}$"},
        "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1, "maxItems": 4},
        "due": {"type": "string", "format": "date"},
    },
    "required": ["decision"],
    "additionalProperties": False,
    "$defs": {"step": {"anyOf": [{"type": "string", "maxLength": 80}, {"const": None}]}},
}


def _says(schema: dict[str, Any]) -> list[tuple[str, str]]:
    return [(fault.pointer, fault.keyword) for fault in lint(schema)]


def test_an_ordinary_answer_schema_passes() -> None:
    assert lint(ANSWER) == ()
    check_policy(Policy(tenant="bank_a", name="p", json_schema=json.dumps(ANSWER)))


@pytest.mark.parametrize(
    "keyword",
    [
        "uniqueItems", "contains", "oneOf", "not", "if", "then", "else", "dependentRequired",
        "dependentSchemas", "propertyNames", "patternProperties", "unevaluatedProperties", "$id", "$anchor",
        "$dynamicRef", "definitions", "contentEncoding", "x-vendor",
    ],
)  # fmt: skip
def test_keywords_that_engines_do_not_enforce_are_refused(keyword: str) -> None:
    assert ("", keyword) in _says({"type": "object", keyword: {}})


def test_all_faults_come_at_once_with_their_pointers() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a/b": {"type": "array", "uniqueItems": True},
            "c": {"anyOf": [{"type": "string"}, {"oneOf": []}]},
        },
        "additionalProperties": {"format": "idn-email"},
        "$defs": {"d": {"pattern": "(?=x)"}},
    }
    assert _says(schema) == [
        ("/properties/a~1b", "uniqueItems"),
        ("/properties/c/anyOf/1", "oneOf"),
        ("/additionalProperties", "format"),
        ("/$defs/d", "pattern"),
    ]
    with pytest.raises(UnsupportedSchema, match=r"oneOf.*format.*pattern") as refused:
        check_schema(schema)
    assert len(refused.value.facts["faults"]) == 4  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "ref",
    [
        "https://example.com/s",
        "#",
        "#/$defs/missing",
        "#/properties/a",
        "#/$defs/a/b",
        "#/$defs/%61",
        "other#/$defs/a",
    ],
)
def test_refs_are_local_and_defined(ref: str) -> None:
    assert _says({"properties": {"p": {"$ref": ref}}, "$defs": {"a": {}}}) == [("/properties/p", "$ref")]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}},
    ],
)
def test_a_ref_that_reaches_itself_is_refused(schema: dict[str, Any]) -> None:
    assert [fault.keyword for fault in lint(schema)] == ["$ref"]
    assert "refers to itself" in lint(schema)[0].why


def test_what_a_small_text_unfolds_to_is_bounded() -> None:
    chain = {f"d{n}": {"items": {"$ref": f"#/$defs/d{n + 1}"}} for n in range(MAX_DEPTH)}
    schema: dict[str, Any] = {"$ref": "#/$defs/d0", "$defs": chain | {f"d{MAX_DEPTH}": {}}}
    assert "unfolds" in lint(schema)[0].why
    # Each doubles the one before: 2**20 leaves, and no more work than 20 definitions.
    laughs = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(10)}
    assert lint({"$ref": "#/$defs/d0", "$defs": laughs | {"d10": {"type": "string"}}}) == ()
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"items": deep}
    assert lint(deep)


def test_size_validity_and_counts() -> None:
    assert "bytes" in lint({"description": "x" * MAX_BYTES})[0].why
    assert _says({"properties": {"a": {"type": "sting"}}}) == [("/properties/a", "type")]
    assert _says({"required": ["a", "a"]}) == [("", "required")]
    assert _says({"minLength": -1}) == [("", "minLength")]
    assert _says({"maxItems": 100_000_000}) == [("", "maxItems")]
    assert _says({"properties": []}) == [("", "properties")]
    assert _says({"items": {"$defs": {}}}) == [("/items", "$defs")]
    assert _says({"$schema": "http://json-schema.org/draft-07/schema#"}) == [("", "$schema")]
    assert _says({"maximum": float("nan")}) == [("", "schema")]


def test_the_text_of_a_policy_is_bounded_before_it_is_parsed() -> None:
    with pytest.raises(UnsupportedSchema, match="bytes"):
        check_policy(Policy(tenant="bank_a", name="p", json_schema="[" * (MAX_BYTES + 1)))
    for text in ("[]", "true", '{"a":1,"a":2}', "{"):
        with pytest.raises(InvalidDocument):
            check_policy(Policy(tenant="bank_a", name="p", json_schema=text))
    check_policy(Policy(tenant="bank_a", name="p"))


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[A-Z]{3}$", r"^(?:EUR|USD) \d+(\.\d{2})?$", r"a*?b", r"[^\]\\]+", r"(ab){2,5}", r"^\w+@\w+\.com$",
        r"(?:a|b){1,16}", r"a|b", r"^$", "é+",
    ],
)  # fmt: skip
def test_patterns_that_mean_the_same_everywhere(pattern: str) -> None:
    assert pattern_fault(pattern) == ""
    re.compile(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?=a)", r"(?!a)", r"(?<=a)b", r"(?i)a", r"(?P<n>a)", r"\bfoo", r"\1", r"(a)\1", r"\p{L}", r"\Z",
        "a$b", "a^", "a++", "a{2}{3}", "a{,3}", "a{3,2}", "(a+)+$", "((a+)b)*", "(a{100}){100}", "(a|a)*",
        "(a|b){1,40}", "[[a]]", "[a&&b]", "[]a]", "(", ")", "[", "[a-", "*", "^*", "|*", "\\",
        "a?" * 11, "a" * 513, "a{1001}",
    ],
)  # fmt: skip
def test_patterns_that_do_not(pattern: str) -> None:
    assert pattern_fault(pattern)
