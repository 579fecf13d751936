"""An adapter beside the model it learned from or started from: the same cases and scores, case by case."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.evidence import Metric
from trainer.answers_file import AnswersFile
from trainer.asking import ask_all
from trainer.datasets import Case
from trainer.evaluation.compare import as_json, metric
from trainer.evaluation.scorers import Scores
from trainer.learning.job import TeacherModel

Answers = Callable[[Sequence[Case], Callable[[int], None]], list[str]]
"""(cases, progress) -> one answer a case."""


@dataclass(frozen=True, slots=True)
class Beside:
    """``difference`` is the adapter's mean less the other model's; its error is that of the differences of
    single cases, so two models that fail on the same cases are told apart by few."""

    metrics: dict[str, Metric]
    difference: dict[str, Metric]
    equal: float
    """Share of answers that are the other model's, character by character."""
    texts: tuple[str, ...]
    scores: tuple[Scores, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "metrics": as_json(self.metrics),
            "difference": as_json(self.difference),
            "equal": self.equal,
        }


def compare_beside(
    own: Sequence[str], own_scores: Sequence[Scores], other: Sequence[str], other_scores: Sequence[Scores]
) -> Beside:
    """All four stand in the order of the cases."""
    pairs = list(zip(own_scores, other_scores, strict=True))
    names = dict.fromkeys(name for mine, theirs in pairs for name in mine if name in theirs)
    both = {
        name: [(mine[name], theirs[name]) for mine, theirs in pairs if name in mine and name in theirs]
        for name in names
    }
    return Beside(
        metrics={name: metric([theirs for _, theirs in marks]) for name, marks in both.items()},
        difference={
            name: metric([float(mine) - float(theirs) for mine, theirs in marks])
            for name, marks in both.items()
        },
        equal=sum(mine == theirs for mine, theirs in zip(own, other, strict=True)) / len(own),
        texts=tuple(other),
        scores=tuple(other_scores),
    )


def answers_of(
    source: TeacherModel, *, max_new_tokens: int, batch_size: int, scratch: Path, seed: int
) -> Answers:
    """Its likeliest answers; those of an endpoint are kept in ``scratch`` as they arrive.

    Asking raises EndpointUnreachable and EndpointRefused.
    """

    def over_http(cases: Sequence[Case], advanced: Callable[[int], None]) -> list[str]:
        if source.endpoint is None:
            raise ValueError("neither weights nor an endpoint")
        with AnswersFile(scratch / "teacher.jsonl") as kept:
            replies = ask_all(
                source.endpoint, source.endpoint_key, cases, sampling=None, samples=1, seed=seed,
                longest=max_new_tokens, kept=kept, advanced=lambda done, _: advanced(done),
            )  # fmt: skip
        return [reply.text for (reply,) in replies]

    def here(cases: Sequence[Case], advanced: Callable[[int], None]) -> list[str]:
        from trainer.evaluation.local import load

        if source.base_folder is None:
            return over_http(cases, advanced)
        model = load(source.base_folder, source.adapter_folder)
        texts: list[str] = model.answers(
            cases,
            adapter=source.adapter_folder is not None,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            advanced=advanced,
        )
        return texts

    return here
