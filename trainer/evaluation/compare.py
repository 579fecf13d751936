"""From scores of single answers to metrics: before (the bare base) and after (with the adapter)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.evidence import Metric
from trainer.datasets import Case
from trainer.evaluation.scorers import Scorer, Scores


@dataclass(frozen=True, slots=True)
class Judged:
    """One case with both answers and their scores."""

    case: Case
    base: str
    adapter: str
    base_scores: Scores
    adapter_scores: Scores


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both sides on the same cases. ``differing`` is the share of answers that are not the base's."""

    metrics: dict[str, Metric]
    baseline: dict[str, Metric]
    differing: float
    by_tag: dict[str, dict[str, dict[str, Metric]]]
    """tag -> ``base`` or ``adapter`` -> metric."""

    @property
    def adapter_active(self) -> bool:
        """An adapter that changes no answer was not measured, or does nothing (lm-eval #2433)."""
        return self.differing > 0


def judge(
    cases: Sequence[Case], base: Sequence[str], adapter: Sequence[str], score: Scorer
) -> tuple[Judged, ...]:
    """Score both answers of every case; the texts stand in the order of the cases."""
    marks = zip(score(cases, base), score(cases, adapter), strict=True)
    return tuple(
        Judged(case, before, after, *scores)
        for case, before, after, scores in zip(cases, base, adapter, marks, strict=True)
    )


def compare(judged: Sequence[Judged]) -> Comparison:
    """Raises ValueError when there is nothing to compare."""
    if not judged:
        raise ValueError("no cases were judged")
    tags = sorted({tag for one in judged for tag in one.case.tags})
    groups = {tag: [one for one in judged if tag in one.case.tags] for tag in tags}
    return Comparison(
        metrics=_metrics([one.adapter_scores for one in judged]),
        baseline=_metrics([one.base_scores for one in judged]),
        differing=sum(one.base != one.adapter for one in judged) / len(judged),
        by_tag={
            tag: {
                "base": _metrics([one.base_scores for one in group]),
                "adapter": _metrics([one.adapter_scores for one in group]),
            }
            for tag, group in groups.items()
        },
    )


def metric(values: Sequence[bool | float]) -> Metric:
    """The mean with its standard error. For a share that is the binomial one: 0.05 with n = 96 near 0.5."""
    n = len(values)
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / n
    return Metric(value=mean, n=n, stderr=math.sqrt(variance / n))


def _metrics(scores: Sequence[Scores]) -> dict[str, Metric]:
    names = dict.fromkeys(name for one in scores for name in one)
    return {name: metric([one[name] for one in scores if name in one]) for name in names}


def as_json(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    return {name: figure.model_dump() for name, figure in metrics.items()}
