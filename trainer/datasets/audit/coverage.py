"""Whether every branch of the policy that is asked for was shown: tags ``intent:x`` and ``branch:y``."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from trainer.datasets.audit.finding import Finding, Outcome
from trainer.datasets.audit.side import Side

_CHECK: Final = "coverage"
NONE: Final = "-"
"""In place of a tag that a row lacks."""

Cell = tuple[str, str]


def coverage(train: Side, held: Side | None) -> Outcome:
    shown, said = _cells(train, winning=True), _cells(train, winning=False)
    asked = Counter[Cell]() if held is None else _cells(held, winning=False)
    figures = {
        "cells": [
            {
                "intent": intent,
                "branch": branch,
                "train": shown[intent, branch],
                "cases": asked[intent, branch],
            }
            for intent, branch in sorted({*shown, *asked} - {(NONE, NONE)})
        ]
    }
    wanted = {cell for cell in asked if cell != (NONE, NONE)}
    lost = tuple(_lost(train, said, {branch for _, branch in shown} | {branch for _, branch in wanted}))
    if held is None or not wanted:
        return Outcome(findings=lost, figures=figures)
    if set(said) <= {(NONE, NONE)}:
        what = (
            f"{train.name} has no tags, so nobody can tell whether every branch of {held.name} is shown: "
            f"tag its rows intent:… and branch:…"
        )
        return Outcome(
            findings=(Finding(check=_CHECK, severity="warning", what=what), *lost), figures=figures
        )
    findings = list(lost)
    branches = {branch for _, branch in shown}
    missing = sorted({branch for _, branch in wanted if branch not in branches and branch != NONE})
    for branch in missing:
        places = _places(held, {cell for cell in wanted if cell[1] == branch})
        what = f"the branch {branch} is asked {len(places)} times and never shown: add winning examples of it"
        findings.append(Finding(check=_CHECK, severity="error", what=what, places=places))
    for intent, branch in sorted(wanted - set(shown)):
        if branch not in missing:
            places = _places(held, {(intent, branch)})
            what = (
                f"the branch {branch} is never shown for the intent {intent}, and asked {len(places)} times"
            )
            findings.append(Finding(check=_CHECK, severity="warning", what=what, places=places))
    return Outcome(findings=tuple(findings), figures=figures)


def _lost(train: Side, said: Counter[Cell], known: set[str]) -> Iterator[Finding]:
    """Branches that the training file itself knows, and only as something to avoid. Not those in ``known``:
    they are shown, or the cases ask for them and say so."""
    for branch in sorted({branch for _, branch in said} - known - {NONE}):
        places = tuple(entry.where for entry in train.entries if branch in entry.tagged("branch"))
        what = (
            f"the branch {branch} is never shown right, and wrong {len(places)} times: "
            f"add winning examples of it"
        )
        yield Finding(check=_CHECK, severity="error", what=what, places=places)


def _cells(side: Side, *, winning: bool) -> Counter[Cell]:
    return Counter(
        cell
        for entry in side.entries
        if entry.wins or not winning
        for cell in _of(entry.tagged("intent"), entry.tagged("branch"))
    )


def _of(intents: tuple[str, ...], branches: tuple[str, ...]) -> list[Cell]:
    return [(intent, branch) for intent in intents or (NONE,) for branch in branches or (NONE,)]


def _places(side: Side, cells: set[Cell]) -> tuple[str, ...]:
    return tuple(
        entry.where
        for entry in side.entries
        if cells & set(_of(entry.tagged("intent"), entry.tagged("branch")))
    )
