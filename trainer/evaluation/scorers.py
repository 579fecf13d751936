"""What is measured of one answer: the same figures for every tenant, and the recipe's own verifiers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from jsonschema import Draft202012Validator

from trainer.datasets import Case
from trainer.evaluation.answers import NOT_JSON, parse_answer
from trainer.rewards import Answer, Reward, score
from trainer.rewards.length import count_words

Scores: TypeAlias = dict[str, bool | float]
"""Metric -> passed, or how much. A metric that does not apply to a case is absent."""

Scorer: TypeAlias = Callable[[Sequence[Case], Sequence[str]], list[Scores]]
"""Cases and their answers, in the same order."""

VERIFIED = "verified"


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


def scorer(schema: Mapping[str, Any] | None, rewards: Sequence[Reward] = ()) -> Scorer:
    """All metrics of each case. ``schema`` adds ``schema_valid``; ``rewards`` add ``verified`` (all binary
    ones passed) and ``verifier.<name>``."""
    validator = None if schema is None else Draft202012Validator(schema)

    def one(case: Case, text: str) -> Scores:
        answer = parse_answer(text)
        scores: Scores = {"valid_json": answer is not NOT_JSON, "words": float(count_words(text))}
        if validator is not None:
            scores["schema_valid"] = answer is not NOT_JSON and bool(validator.is_valid(answer))
        if case.facts:
            scores["copied"] = copied(text, case.facts)
        if case.expect is not None:
            scores["policy"] = _satisfies(answer, case.expect)
        if case.answer is not None:
            scores["exact"] = text.strip() == case.answer.strip()
        return scores

    def all_of(cases: Sequence[Case], texts: Sequence[str]) -> list[Scores]:
        marks = [one(case, text) for case, text in zip(cases, texts, strict=True)]
        if rewards:
            said = [Answer(case, text) for case, text in zip(cases, texts, strict=True)]
            for mark, scored in zip(marks, score(rewards, said), strict=True):
                mark[VERIFIED] = scored.accepted
                mark |= {
                    f"verifier.{name}": given for name, given in scored.scores.items() if given is not None
                }
        return marks

    return all_of
