"""Ask every case of a suite twice, of the bare base and of the adapter, and compare."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from trainer.evaluation.beside import Answers, Beside, compare_beside
from trainer.evaluation.compare import Comparison, Judged, as_json, compare, judge
from trainer.evaluation.scorers import scorer
from trainer.evaluation.suite import Suite
from trainer.events import Progress, StageAdvanced, ignore
from trainer.rewards import Reward

STAGE: Final = "evaluate"
DIVERGENCE: Final = "kl"
"""Metric: how far the adapter is from its base, nats a token; the base's own is 0."""

Load = Callable[[Path, Path], Any]
"""(base folder, adapter folder) -> something with the methods of trainer.evaluation.local.LocalModel."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    comparison: Comparison
    judged: tuple[Judged, ...]
    beside: Mapping[str, Beside] = field(default_factory=dict)
    """Role (``start``, ``teacher``) -> how that model does on the same cases."""

    def as_json(self) -> dict[str, Any]:
        """``evaluation.json`` of a run folder."""
        comparison = self.comparison
        return {
            "metrics": as_json(comparison.metrics),
            "baseline": as_json(comparison.baseline),
            "differing": comparison.differing,
            "adapter_active": comparison.adapter_active,
            "by_tag": {
                tag: {side: as_json(metrics) for side, metrics in sides.items()}
                for tag, sides in comparison.by_tag.items()
            },
            "beside": {role: other.as_json() for role, other in self.beside.items()},
        }

    def samples(self) -> list[dict[str, Any]]:
        """``samples.json`` of a run folder: every case with all answers to it."""
        samples = [
            {
                "id": one.case.id,
                "messages": [message.as_dict() for message in one.case.prompt],
                "tags": list(one.case.tags),
                "base": {"text": one.base, "scores": one.base_scores},
                "adapter": {"text": one.adapter, "scores": one.adapter_scores},
            }
            for one in self.judged
        ]
        for role, other in self.beside.items():
            for sample, text, scores in zip(samples, other.texts, other.scores, strict=True):
                sample[role] = {"text": text, "scores": scores}
        return samples


def evaluate(
    suite: Suite,
    *,
    schema: Mapping[str, Any] | None,
    rewards: Sequence[Reward] = (),
    base_folder: Path,
    adapter_folder: Path,
    max_new_tokens: int = 128,
    batch_size: int = 64,
    sink: Progress = ignore,
    load: Load | None = None,
    beside: Mapping[str, Answers] | None = None,
) -> Evaluation:
    """Generated answers, greedy and in float32. ``load`` is for tests and for other ways to generate.
    ``beside`` are other models, by role, that are asked the same cases."""
    model = (load or _load_here)(base_folder, adapter_folder)
    others = dict(beside or {})
    total = (2 + len(others)) * len(suite.rows)

    def said(*, adapter: bool) -> list[str]:
        start = len(suite.rows) if adapter else 0
        answers: list[str] = model.answers(
            suite.rows,
            adapter=adapter,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            advanced=lambda done: sink(StageAdvanced(STAGE, start + done, total)),
        )
        return answers

    score = scorer(schema, rewards)
    before, after = said(adapter=False), said(adapter=True)
    moved = model.divergences(suite.rows, after)
    judged = tuple(map(_with_divergence, judge(suite.rows, before, after, score), moved))
    own = [one.adapter for one in judged], [one.adapter_scores for one in judged]
    found: dict[str, Beside] = {}
    for place, (role, answers) in enumerate(others.items(), start=2):
        start = place * len(suite.rows)
        texts = answers(suite.rows, lambda done, start=start: sink(StageAdvanced(STAGE, start + done, total)))  # type: ignore[misc]
        found[role] = compare_beside(*own, texts, score(suite.rows, texts))
    return Evaluation(compare(judged), judged, found)


def _with_divergence(one: Judged, moved: float | None) -> Judged:
    if moved is None:
        return one
    return replace(
        one,
        base_scores={**one.base_scores, DIVERGENCE: 0.0},
        adapter_scores={**one.adapter_scores, DIVERGENCE: moved},
    )


def _load_here(base_folder: Path, adapter_folder: Path) -> Any:
    from trainer.evaluation.local import load

    return load(base_folder, adapter_folder)
