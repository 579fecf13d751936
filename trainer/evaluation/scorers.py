"""What is measured of one answer: the same figures for every tenant, and the recipe's own verifiers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from jsonschema import Draft202012Validator

from trainer.datasets import Case
from trainer.evaluation.answers import NOT_JSON, facts_in, parse_answer, satisfies
from trainer.rewards import Answer, Reward, score
from trainer.rewards.length import count_words

Scores: TypeAlias = dict[str, bool | float]
"""Metric -> passed, or how much. A metric that does not apply to a case is absent."""

Scorer: TypeAlias = Callable[[Sequence[Case], Sequence[str]], list[Scores]]
"""Cases and their answers, in the same order."""

VERIFIED = "verified"


def scorer(schema: Mapping[str, Any] | None, rewards: Sequence[Reward] = ()) -> Scorer:
    """All metrics of each case. ``schema`` adds ``schema_valid``; ``rewards`` add ``verified`` (all binary
    ones passed) and ``verifier.<name>``."""
    validator = None if schema is None else Draft202012Validator(schema)

    def one(case: Case, text: str) -> Scores:
        answer = parse_answer(text)
        scores: Scores = {"valid_json": answer is not NOT_JSON, "words": float(count_words(text))}
        if validator is not None:
            scores["schema_valid"] = satisfies(answer, validator)
        if case.facts:
            scores["copied"] = all(found == fact for found, fact in facts_in(answer, case.facts))
        if case.expect is not None:
            scores["policy"] = satisfies(answer, Draft202012Validator(case.expect))
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
