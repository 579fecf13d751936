"""Held-out questions that training has seen, and answers that stand in their own question."""

import re
from typing import Final

from trainer.datasets.audit.finding import Finding, Outcome
from trainer.datasets.audit.near import across
from trainer.datasets.audit.side import Entry, Side
from trainer.datasets.leaks import leaks

_CHECK: Final = "leakage"
_SENTENCE: Final = 4
"""Words from which an answer inside its question is no coincidence. Shorter ones (``refund``) may be listed
there as a choice, so they count only behind a word that announces them."""

_ANNOUNCED: Final = r"(?:answer|label|solution|output|expected|ground truth|correct)\s*(?:is|[:=])\s*"


def leakage(train: Side, held: Side | None, *, near: bool) -> Outcome:
    findings: list[Finding] = []
    exact = () if held is None else leaks(train.dataset, held.dataset)
    if held is not None and exact:
        what = f"held-out questions that stand in {train.name} too: {len(exact)}, and they prove nothing"
        places = tuple(fault.where for fault in exact)
        findings.append(Finding(check=_CHECK, severity="error", what=what, places=places))
    alike: list[tuple[int, int, float]] = []
    if held is not None and near:
        known = {fault.where for fault in exact}
        theirs, ours = ([entry.asked for entry in side.entries] for side in (held, train))
        alike = [pair for pair in across(theirs, ours) if held.entries[pair[0]].where not in known]
    if held is not None and alike:
        first, second, likeness = alike[0]
        what = (
            f"held-out questions that are near duplicates of one in {train.name}: {len(alike)}; "
            f"{held.entries[first].where} is {likeness:.0%} of {train.entries[second].where}"
        )
        places = tuple(held.entries[number].where for number, _, _ in alike)
        findings.append(Finding(check=_CHECK, severity="warning", what=what, places=places))
    for side in (train, held):
        if side is None:
            continue
        told = tuple(entry.where for entry in side.entries if _tells(entry))
        if told:
            what = f"questions of {side.name} that contain their own answer: {len(told)}"
            findings.append(Finding(check=_CHECK, severity="warning", what=what, places=told))
    figures = {"exact": len(exact), "near": len(alike) if near and held is not None else None}
    return Outcome(findings=tuple(findings), figures=figures)


def _tells(entry: Entry) -> bool:
    """What a tool returned, and what was said before, may well be repeated."""
    asked = " ".join(m.content for m in entry.row.prompt if m.role in ("system", "user")).casefold()
    asked = " ".join(asked.split())
    for answer in entry.wanted[-1:]:
        text = " ".join(answer.casefold().split())
        if len(text.split()) >= _SENTENCE and text in asked:
            return True
        if text and re.search(_ANNOUNCED + re.escape(text.rstrip(".")) + r"\b", asked):
            return True
    return False
