"""The student beside its teacher: the same cases, the same scores, case by case."""

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
class AgainstTeacher:
    """``difference`` is the student's mean less the teacher's; its error is that of the differences of single
    cases, so two models that fail on the same cases are told apart by few."""

    metrics: dict[str, Metric]
    difference: dict[str, Metric]
    equal: float
    """Share of answers that are the teacher's, character by character."""
    texts: tuple[str, ...]
    scores: tuple[Scores, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "metrics": as_json(self.metrics),
            "difference": as_json(self.difference),
            "equal": self.equal,
        }


def against(
    student: Sequence[str],
    student_scores: Sequence[Scores],
    teacher: Sequence[str],
    teacher_scores: Sequence[Scores],
) -> AgainstTeacher:
    """All four stand in the order of the cases."""
    pairs = list(zip(student_scores, teacher_scores, strict=True))
    names = dict.fromkeys(name for own, taught in pairs for name in own if name in taught)
    both = {
        name: [(own[name], taught[name]) for own, taught in pairs if name in own and name in taught]
        for name in names
    }
    return AgainstTeacher(
        metrics={name: metric([taught for _, taught in marks]) for name, marks in both.items()},
        difference={
            name: metric([float(own) - float(taught) for own, taught in marks])
            for name, marks in both.items()
        },
        equal=sum(own == taught for own, taught in zip(student, teacher, strict=True)) / len(student),
        texts=tuple(teacher),
        scores=tuple(teacher_scores),
    )


def answers_of(
    teacher: TeacherModel, *, max_new_tokens: int, batch_size: int, scratch: Path, seed: int
) -> Answers:
    """The teacher's likeliest answers; those of an endpoint are kept in ``scratch`` as they arrive.

    Asking raises EndpointUnreachable and EndpointRefused.
    """

    def over_http(cases: Sequence[Case], advanced: Callable[[int], None]) -> list[str]:
        if teacher.endpoint is None:
            raise ValueError("neither weights nor an endpoint")
        with AnswersFile(scratch / "teacher.jsonl") as kept:
            replies = ask_all(
                teacher.endpoint, teacher.endpoint_key, cases, sampling=None, samples=1, seed=seed,
                longest=max_new_tokens, kept=kept, advanced=lambda done, _: advanced(done),
            )  # fmt: skip
        return [reply.text for (reply,) in replies]

    def here(cases: Sequence[Case], advanced: Callable[[int], None]) -> list[str]:
        from trainer.evaluation.local import load

        if teacher.base_folder is None:
            return over_http(cases, advanced)
        model = load(teacher.base_folder, teacher.adapter_folder)
        texts: list[str] = model.answers(
            cases,
            adapter=teacher.adapter_folder is not None,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            advanced=advanced,
        )
        return texts

    return here
