"""How long questions and answers are."""

from collections.abc import Sequence
from typing import Any, Final

from trainer.datasets.audit.finding import Finding, Outcome
from trainer.datasets.audit.side import Side, TokenCount
from trainer.datasets.rows import Pair

_CHECK: Final = "lengths"
_BINS: Final = 12
_DRIFT: Final = 2.0
"""Between the medians of training and held-out questions: another kind of question."""
_BIAS: Final = 1.5
"""Between chosen and rejected answers: length tells them apart, and is learned first (arXiv:2310.03716)."""
_OUTLIER: Final = 10


def lengths(train: Side, held: Side | None, *, count: TokenCount | None, limit: int | None) -> Outcome:
    figures: dict[str, Any] = {}
    findings: list[Finding] = []
    for side, role in ((train, "train"), (held, "evaluation")):
        if side is not None:
            figures[role] = {
                part: _spread(texts, count)
                for part, texts in (
                    ("questions", [entry.asked for entry in side.entries]),
                    ("answers", [answer.text for entry in side.entries for answer in entry.answers]),
                )
                if texts
            }
    if held is not None:
        findings += _drift(train, held, figures)
    findings += _bias(train)
    findings += _outliers(train, figures)
    if count is not None and limit is not None:
        findings += _too_long(train, count, limit)
    return Outcome(findings=tuple(findings), figures=figures)


def _words(text: str) -> int:
    return len(text.split())


def _spread(texts: Sequence[str], count: TokenCount | None) -> dict[str, Any]:
    words = sorted(map(_words, texts))
    figures: dict[str, Any] = {
        "words": _quantiles(words),
        "characters": _quantiles(sorted(map(len, texts))),
        "histogram": _histogram(words),
    }
    if count is not None:
        figures["tokens"] = _quantiles(sorted(map(count, texts)))
    return figures


def _quantiles(ordered: Sequence[int]) -> dict[str, int]:
    at = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}
    return {name: ordered[round(share * (len(ordered) - 1))] for name, share in at.items()}


def _histogram(ordered: Sequence[int]) -> dict[str, Any]:
    """Texts per bin of words; the last bin ends with the longest."""
    low, high = ordered[0], ordered[-1]
    width = max(1, -(-(high - low + 1) // _BINS))
    bins = [0] * (-(-(high - low + 1) // width))
    for value in ordered:
        bins[(value - low) // width] += 1
    return {"from": low, "width": width, "counts": bins}


def _drift(train: Side, held: Side, figures: dict[str, Any]) -> list[Finding]:
    first = figures["train"]["questions"]["words"]["median"]
    second = figures["evaluation"]["questions"]["words"]["median"]
    if max(first, second) < _DRIFT * max(1, min(first, second)):
        return []
    what = (
        f"a question of {held.name} has {second} words (median), one of {train.name} {first}: "
        "what is measured is not what is learned"
    )
    return [Finding(check=_CHECK, severity="warning", what=what)]


def _bias(train: Side) -> list[Finding]:
    pairs = [entry.row for entry in train.entries if isinstance(entry.row, Pair)]
    if not pairs:
        return []
    chosen = sum(_words(pair.chosen) for pair in pairs)
    rejected = sum(_words(pair.rejected) for pair in pairs)
    ratio = chosen / max(1, rejected)
    if 1 / _BIAS < ratio < _BIAS:
        return []
    what = (
        f"chosen answers have {ratio:.1f} times the words of rejected ones: length alone tells them apart, "
        "and is learned first"
    )
    return [Finding(check=_CHECK, severity="warning", what=what)]


def _outliers(train: Side, figures: dict[str, Any]) -> list[Finding]:
    median = figures["train"].get("answers", {}).get("words", {}).get("median", 0)
    bound = max(100, _OUTLIER * median)
    places = tuple(e.where for e in train.entries if any(_words(a.text) > bound for a in e.answers))
    if not places:
        return []
    what = f"answers of more than {bound} words, where the median is {median}: {len(places)}"
    return [Finding(check=_CHECK, severity="note", what=what, places=places)]


def _too_long(train: Side, count: TokenCount, limit: int) -> list[Finding]:
    """By the text alone; the chat template adds its own, so a few more rows may be refused."""
    places = tuple(
        entry.where for entry in train.entries if sum(count(text) for _, text in entry.said()) > limit
    )
    if not places:
        return []
    what = f"rows of more than the {limit} tokens that max_length allows: {len(places)}"
    return [Finding(check=_CHECK, severity="error", what=what, places=places)]
