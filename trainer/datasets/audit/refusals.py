"""How often the answer is a refusal, in training and among the held-out answers."""

import re
from typing import Any, Final

from trainer.datasets.audit.finding import Finding, Outcome
from trainer.datasets.audit.side import Side

_CHECK: Final = "refusals"
_MUCH: Final = 0.5
_FEW: Final = 0.02
_REFUSAL: Final = re.compile(
    r"\b(?:i(?:'m| am)? (?:sorry|afraid)|i (?:can(?:not|'t)|won't|will not|must decline|am (?:not |un)able)"
    r"|i'm (?:not able|unable)|as an ai|unable to (?:help|assist|comply)|not (?:allowed|permitted) to"
    r"|(?:das|dabei|hierbei) (?:kann|darf) ich (?:leider )?nicht|je ne peux pas|no puedo|non posso)\b"
)
_OPENING: Final = 160
"""Characters: a refusal says so at once; later, ``I can't`` is about something else."""


def refusals(train: Side, held: Side | None) -> Outcome:
    shares = {"train": _share(train), "evaluation": None if held is None else _share(held)}
    figures: dict[str, Any] = {role: share for role, share in shares.items() if share is not None}
    ours, theirs = shares["train"], shares["evaluation"]
    if ours is None:
        return Outcome(figures=figures)
    findings = []
    if ours > _MUCH:
        what = f"{ours:.0%} of the answers in {train.name} refuse: the adapter will refuse what it should do"
        findings.append(Finding(check=_CHECK, severity="warning", what=what))
    if theirs is not None and theirs > _FEW and ours == 0:
        what = f"{theirs:.0%} of the held-out answers refuse, and no row of {train.name} shows how"
        findings.append(Finding(check=_CHECK, severity="warning", what=what))
    if theirs == 0 and ours > _FEW:
        what = f"{ours:.0%} of the answers in {train.name} refuse, and no held-out answer does: unmeasured"
        findings.append(Finding(check=_CHECK, severity="note", what=what))
    return Outcome(findings=tuple(findings), figures=figures)


def refuses(text: str) -> bool:
    return _REFUSAL.search(text[:_OPENING].casefold().replace("’", "'")) is not None


def _share(side: Side) -> float | None:
    """None when nothing is answered, as in cases that are judged by facts."""
    answers = [text for entry in side.entries for text in entry.wanted[-1:]]
    return round(sum(map(refuses, answers)) / len(answers), 4) if answers else None
