"""Whether both right and wrong are shown, where rows are judged."""

from typing import Final

from trainer.datasets.audit.finding import Finding, Outcome
from trainer.datasets.audit.side import Side
from trainer.datasets.rows import Labelled, Steps

_CHECK: Final = "labels"
_LEAST: Final = 0.1


def labels(train: Side) -> Outcome:
    judged = [
        answer.wanted
        for entry in train.entries
        if isinstance(entry.row, Labelled | Steps)
        for answer in entry.answers
    ]
    if not judged:
        return Outcome()
    share = sum(judged) / len(judged)
    figures = {"right": round(share, 4)}
    if share in (0, 1):
        what = f"every label is {'true' if share else 'false'}: there is nothing to tell apart"
        return Outcome(findings=(Finding(check=_CHECK, severity="error", what=what),), figures=figures)
    if min(share, 1 - share) < _LEAST:
        what = f"{share:.0%} of the labels are true: weigh or balance them"
        return Outcome(findings=(Finding(check=_CHECK, severity="warning", what=what),), figures=figures)
    return Outcome(figures=figures)
