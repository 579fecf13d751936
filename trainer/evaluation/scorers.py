"""Judging one answer: pure functions of its text. None of them trusts the model to have answered in JSON."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from jsonschema import Draft202012Validator

from registry import canonical
from registry.errors import InvalidDocument
from trainer.evaluation.suite import Case

Scores: TypeAlias = dict[str, bool]
"""Metric -> passed. A metric that does not apply to a case is absent."""

Scorer: TypeAlias = Callable[[Case, str], Scores]


@dataclass(frozen=True, slots=True)
class _NotJson:
    """Unlike every JSON value, ``None`` included."""


NOT_JSON = _NotJson()


def parse_answer(text: str) -> Any:
    """The JSON value, or NOT_JSON. Strict: text around it, a key twice or NaN is not JSON."""
    try:
        return canonical.decode(text)
    except InvalidDocument:
        return NOT_JSON


def valid_json(text: str) -> bool:
    return parse_answer(text) is not NOT_JSON


def schema_valid(text: str, schema: Mapping[str, Any]) -> bool:
    """Whether the answer satisfies the policy's schema, which every tenant's answers must."""
    return _satisfies(parse_answer(text), schema)


def policy(text: str, expect: Mapping[str, Any]) -> bool:
    """Whether the answer satisfies what this case expects: the tenant's own rule."""
    return _satisfies(parse_answer(text), expect)


def copied(text: str, facts: Mapping[str, str]) -> bool:
    """Whether every fact stands in the field of its name, character by character."""
    answer = parse_answer(text)
    return isinstance(answer, dict) and all(answer.get(name) == fact for name, fact in facts.items())


def _satisfies(answer: Any, schema: Mapping[str, Any]) -> bool:
    return answer is not NOT_JSON and bool(Draft202012Validator(schema).is_valid(answer))


def scorer(schema: Mapping[str, Any] | None) -> Scorer:
    """All metrics of a case at once. ``schema`` adds ``schema_valid``."""
    validator = None if schema is None else Draft202012Validator(schema)

    def score(case: Case, text: str) -> Scores:
        answer = parse_answer(text)
        scores = {"valid_json": answer is not NOT_JSON}
        if validator is not None:
            scores["schema_valid"] = answer is not NOT_JSON and bool(validator.is_valid(answer))
        if case.facts:
            scores["copied"] = copied(text, case.facts)
        if case.expect is not None:
            scores["policy"] = _satisfies(answer, case.expect)
        return scores

    return score
