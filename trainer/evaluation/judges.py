"""Reward models on held-out rows, before (the bare base) and after: do they tell right from wrong?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

from registry.evidence import Metric
from trainer.datasets import Dataset, Pair, Steps
from trainer.evaluation.compare import as_json, metric
from trainer.evaluation.run import STAGE
from trainer.events import Progress, StageAdvanced, ignore

Scores: TypeAlias = tuple[float, ...]
"""Of one row: chosen and rejected, or one for each step. Above 0 is rather right than wrong."""

Load = Callable[[Path, Path], Any]
"""(base folder, adapter folder) -> something with the ``scores`` of trainer.learning.scoring.LocalScorer."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Every held-out row with the scores of both sides."""

    rows: tuple[Pair | Steps, ...]
    base: tuple[Scores, ...]
    adapter: tuple[Scores, ...]

    @property
    def adapter_active(self) -> bool:
        return self.base != self.adapter

    def metrics(self, tag: str | None = None, *, adapter: bool = True) -> dict[str, Metric]:
        marks = [
            (row, scores)
            for row, scores in zip(self.rows, self.adapter if adapter else self.base, strict=True)
            if tag is None or tag in row.tags
        ]
        if isinstance(marks[0][0], Pair):
            return _of_pairs([scores for _, scores in marks])
        return _of_steps([(cast("Steps", row).labels, scores) for row, scores in marks])

    def as_json(self) -> dict[str, Any]:
        """``evaluation.json`` of a run folder."""
        tags = sorted({tag for row in self.rows for tag in row.tags})
        differing = sum(one != other for one, other in zip(self.base, self.adapter, strict=True))
        return {
            "metrics": as_json(self.metrics()),
            "baseline": as_json(self.metrics(adapter=False)),
            "differing": differing / len(self.rows),
            "adapter_active": self.adapter_active,
            "by_tag": {
                tag: {
                    side: as_json(self.metrics(tag, adapter=side == "adapter"))
                    for side in ("base", "adapter")
                }
                for tag in tags
            },
        }

    def samples(self, separator: str) -> list[dict[str, Any]]:
        """``samples.json``: what was scored, with its scores. The text is the same on both sides."""
        return [
            {
                "id": f"line-{row.line}",
                "messages": [message.as_dict() for message in row.prompt],
                "tags": list(row.tags),
                "base": _sample(row, before, separator),
                "adapter": _sample(row, after, separator),
            }
            for row, before, after in zip(self.rows, self.base, self.adapter, strict=True)
        ]


def judge_rows(
    suite: Dataset[Any],
    *,
    base_folder: Path,
    adapter_folder: Path,
    separator: str,
    batch_size: int = 64,
    sink: Progress = ignore,
    load: Load | None = None,
) -> Judgement:
    """Score every answer (or step) of ``suite`` with and without the adapter. Nothing is generated."""
    from trainer.learning.scoring import Scored, each_step, whole_answer

    scorer = (load or _load_here)(base_folder, adapter_folder)
    rows: tuple[Pair | Steps, ...] = suite.rows

    def rendered(row: Pair | Steps) -> list[Scored]:
        if isinstance(row, Steps):
            return [each_step(scorer.tokenizer, row.prompt, row.completions, separator)]
        return [whole_answer(scorer.tokenizer, row.prompt, text) for text in (row.chosen, row.rejected)]

    asked = [rendered(row) for row in rows]
    sides: list[tuple[Scores, ...]] = []
    for adapter in (False, True):
        flat = scorer.scores([one for row in asked for one in row], adapter=adapter, batch_size=batch_size)
        values = iter(flat)
        sides.append(tuple(tuple(score for _ in row for score in next(values)) for row in asked))
        sink(StageAdvanced(STAGE, len(rows) * len(sides), 2 * len(rows)))
    return Judgement(rows, *sides)


def _of_pairs(scores: Sequence[Scores]) -> dict[str, Metric]:
    """A tie is no preference: it does not count as right."""
    return {
        "pair_accuracy": metric([chosen > rejected for chosen, rejected in scores]),
        "score_margin": metric([chosen - rejected for chosen, rejected in scores]),
    }


def _of_steps(marks: Sequence[tuple[tuple[bool, ...], Scores]]) -> dict[str, Metric]:
    """``step_balanced`` is the mean of the accuracies on right and on wrong steps, so that calling everything
    right earns 0.5; ``first_error`` asks for the first wrong step (or that there is none)."""
    said = [
        (label, score > 0) for labels, scores in marks for label, score in zip(labels, scores, strict=True)
    ]
    found: dict[str, Metric] = {"step_accuracy": metric([label == guess for label, guess in said])}
    sides = [[label == guess for label, guess in said if label is side] for side in (True, False)]
    if all(sides):
        right, wrong = map(metric, sides)
        found["step_balanced"] = Metric(
            value=(right.value + wrong.value) / 2,
            n=len(said),
            stderr=(right.stderr**2 + wrong.stderr**2) ** 0.5 / 2,
        )
    found["first_error"] = metric(
        [_first_wrong(labels) == _first_wrong([score > 0 for score in scores]) for labels, scores in marks]
    )
    return found


def _first_wrong(steps: Sequence[bool]) -> int | None:
    return next((place for place, right in enumerate(steps) if not right), None)


def _sample(row: Pair | Steps, scores: Scores, separator: str) -> dict[str, Any]:
    rounded = [round(score, 4) for score in scores]
    if isinstance(row, Pair):
        marks: Mapping[str, Any] = {"chosen": rounded[0], "rejected": rounded[1]}
        return {"text": row.chosen, "rejected": row.rejected, "scores": marks}
    return {
        "text": separator.join(row.completions),
        "labels": list(row.labels),
        "scores": {f"step_{number}": score for number, score in enumerate(rounded, start=1)},
    }


def _load_here(base_folder: Path, adapter_folder: Path) -> Any:
    from trainer.learning.scoring import LocalScorer

    return LocalScorer(base_folder, adapter_folder)
