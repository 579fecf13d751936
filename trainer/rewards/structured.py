"""Verifiers of JSON answers."""

from collections.abc import Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator

from registry.canonical import Document
from trainer.datasets.schemas import schema_fault
from trainer.evaluation.answers import NOT_JSON, parse_answer
from trainer.rewards.kind import Kind, NoSettings, Resources
from trainer.rewards.verifier import Answer, Score, Verifier, each


def _valid_json(settings: NoSettings, resources: Resources) -> Verifier:
    return each(lambda answer: float(parse_answer(answer.text) is not NOT_JSON))


class SchemaSettings(Document):
    json_schema: dict[str, Any] | None = None
    """Instead of the recipe's ``evaluation.schema``."""


def _schema_valid(settings: SchemaSettings, resources: Resources) -> Verifier:
    schema = settings.json_schema or resources.schema
    if schema is None:
        raise ValueError("schema_valid needs evaluation.schema, or a json_schema in its settings")
    if (trouble := schema_fault(schema)) is not None:
        raise ValueError(f"schema_valid: json_schema {trouble}")
    validator = Draft202012Validator(schema)
    return each(lambda answer: float(_satisfies(validator, parse_answer(answer.text))))


def _policy(settings: NoSettings, resources: Resources) -> Verifier:
    def judge(answer: Answer) -> Score:
        if answer.case.expect is None:
            return None
        return float(_satisfies(Draft202012Validator(answer.case.expect), parse_answer(answer.text)))

    return each(judge)


class FieldSettings(Document):
    fields: tuple[str, ...] = ()
    """Only these facts; all of them when empty."""


def _field_equal(settings: FieldSettings, resources: Resources) -> Verifier:
    def judge(answer: Answer) -> Score:
        facts: Mapping[str, str] = {
            name: fact
            for name, fact in answer.case.facts.items()
            if not settings.fields or name in settings.fields
        }
        if not facts:
            return None
        found = parse_answer(answer.text)
        if not isinstance(found, dict):
            return 0.0
        return sum(bool(found.get(name) == fact) for name, fact in facts.items()) / len(facts)

    return each(judge)


def _satisfies(validator: Draft202012Validator, answer: Any) -> bool:
    return answer is not NOT_JSON and bool(validator.is_valid(answer))


KINDS: Final = (
    Kind("valid_json", "the answer is one JSON value", NoSettings, _valid_json),
    Kind("schema_valid", "the answer satisfies a JSON Schema", SchemaSettings, _schema_valid),
    Kind("policy", "the answer satisfies what the case expects", NoSettings, _policy),
    Kind(
        "field_equal", "share of the case's facts that stand in their fields", FieldSettings, _field_equal,
        binary=False,
    ),
)  # fmt: skip
