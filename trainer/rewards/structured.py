"""Verifiers of JSON answers."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from jsonschema import Draft202012Validator
from pydantic import Field

from registry.canonical import Document
from trainer.datasets.schemas import schema_fault
from trainer.evaluation.answers import NOT_JSON, facts_in, parse_answer, satisfies
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
    return each(lambda answer: float(satisfies(parse_answer(answer.text), validator)))


def _policy(settings: NoSettings, resources: Resources) -> Verifier:
    def judge(answer: Answer) -> Score:
        if answer.case.expect is None:
            return None
        return float(satisfies(parse_answer(answer.text), Draft202012Validator(answer.case.expect)))

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
        found = facts_in(parse_answer(answer.text), facts)
        return sum(bool(said == fact) for said, fact in found) / len(facts)

    return each(judge)


class JournalSettings(Document):
    entries: str = Field(default="entries", min_length=1)
    """The field that holds the list of entries."""
    debit: str = Field(default="debit", min_length=1)
    credit: str = Field(default="credit", min_length=1)
    total: str | None = None
    """A fact of the case that debits and credits must each come to."""


def _journal_balanced(settings: JournalSettings, resources: Resources) -> Verifier:
    def judge(answer: Answer) -> float:
        found = parse_answer(answer.text)
        entries = found.get(settings.entries) if isinstance(found, dict) else None
        if not isinstance(entries, list) or not entries or not all(isinstance(one, dict) for one in entries):
            return 0.0
        sides = [[_money(one.get(side, 0)) for one in entries] for side in (settings.debit, settings.credit)]
        known = [[sum_ for sum_ in side if sum_ is not None] for side in sides]
        if any(len(side) != len(entries) for side in known):
            return 0.0
        debit, credit = (sum(side, Decimal(0)) for side in known)
        wanted = answer.case.facts.get(settings.total) if settings.total else None
        exact = wanted is None or _money(wanted) == debit
        return float(debit == credit and debit > 0 and exact)

    return each(judge)


def _money(value: Any) -> Decimal | None:
    """An exact amount, not below nought. A number that JSON reads as a float stands for its digits; digits
    that nobody books are refused, since adding them up would take forever or round."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = repr(value) if isinstance(value, float) else str(value)
    return Decimal(text) if _MONEY.fullmatch(text) else None


_MONEY: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")


KINDS: Final = (
    Kind("valid_json", "the answer is one JSON value", NoSettings, _valid_json),
    Kind("schema_valid", "the answer satisfies a JSON Schema", SchemaSettings, _schema_valid),
    Kind("policy", "the answer satisfies what the case expects", NoSettings, _policy),
    Kind(
        "field_equal", "share of the case's facts that stand in their fields", FieldSettings, _field_equal,
        binary=False,
    ),
    Kind(
        "journal_balanced", "debits and credits of the answer's entries come to the same, exactly",
        JournalSettings, _journal_balanced,
    ),
)  # fmt: skip
