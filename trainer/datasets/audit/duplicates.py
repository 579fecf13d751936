"""Rows that say what another says: exactly, nearly, or with another answer."""

from collections import defaultdict

from trainer.datasets.audit.finding import Finding, Outcome
from trainer.datasets.audit.near import LIKENESS, within
from trainer.datasets.audit.side import Side
from trainer.datasets.leaks import prompt_key
from trainer.datasets.rows import Conversation

_CHECK = "duplicates"


def duplicates(train: Side, *, near: bool) -> Outcome:
    findings: list[Finding] = []
    repeated = train.dataset.repeated
    if repeated:
        count = f"{len(repeated)} of its rows say" if len(repeated) > 1 else "1 of its rows says"
        what = f"{train.name}: {count} what an earlier row says, first line {repeated[0]}"
        places = tuple(f"{train.name}:{line}" for line in repeated)
        findings.append(Finding(check=_CHECK, severity="warning", what=what, places=places))
    findings += _contradictions(train)
    found: list[tuple[int, int, float]] = []
    if near:
        exact = set(repeated)
        pairs = within(
            ["\n".join((entry.asked, *(a.text for a in entry.answers))) for entry in train.entries]
        )
        found = [pair for pair in pairs if train.entries[pair[0]].row.line not in exact]
    if found:
        later, earlier, likeness = found[0]
        what = (
            f"near duplicates of an earlier row: {len(found)} (at least {LIKENESS:.0%} of the wording); "
            f"{train.entries[later].where} is {likeness:.0%} of {train.entries[earlier].where}"
        )
        places = tuple(train.entries[later].where for later, _, _ in found)
        findings.append(Finding(check=_CHECK, severity="note", what=what, places=places))
    figures = {"exact": len(repeated), "near": len(found) if near else None}
    return Outcome(findings=tuple(findings), figures=figures)


def _contradictions(train: Side) -> list[Finding]:
    """One question with several answers teaches to toss a coin."""
    answers: dict[object, set[str]] = defaultdict(set)
    places: dict[object, list[str]] = defaultdict(list)
    for entry in train.entries:
        if isinstance(entry.row, Conversation):
            key = prompt_key(entry.row.prompt)
            answers[key].add(" ".join(entry.row.messages[-1].content.split()))
            places[key].append(entry.where)
    torn = [key for key, given in answers.items() if len(given) > 1]
    if not torn:
        return []
    what = f"questions that are asked more than once and answered differently: {len(torn)}"
    where = tuple(place for key in torn for place in places[key])
    return [Finding(check=_CHECK, severity="warning", what=what, places=where)]
