"""All checks over training rows and, if there are any, held-out rows."""

from collections.abc import Sequence
from typing import Any, Literal

from registry.canonical import Document
from registry.digests import Digest
from trainer.datasets.audit.coverage import coverage
from trainer.datasets.audit.duplicates import duplicates
from trainer.datasets.audit.finding import SEVERITIES, Finding, Severity
from trainer.datasets.audit.labels import labels
from trainer.datasets.audit.languages import languages
from trainer.datasets.audit.leakage import leakage
from trainer.datasets.audit.lengths import lengths
from trainer.datasets.audit.personal import personal
from trainer.datasets.audit.refusals import refusals
from trainer.datasets.audit.side import Side, TokenCount
from trainer.datasets.audit.style import style
from trainer.datasets.rows import Dataset
from trainer.errors import DataInvalid


class Audited(Document):
    """Which bytes were looked at."""

    name: str
    digest: Digest
    rows: int


class Audit(Document):
    """No times and no paths: the same data give the same digest."""

    kind: Literal["tenon.audit/v1"] = "tenon.audit/v1"
    train: Audited | None
    """None when the file could not be read; the findings say why."""
    evaluation: Audited | None
    counts: dict[Severity, int]
    """Findings by severity."""
    findings: tuple[Finding, ...]
    figures: dict[str, Any]
    """By check."""


def audit(
    train: Dataset[Any],
    evaluation: Dataset[Any] | None = None,
    *,
    near: bool = True,
    count: TokenCount | None = None,
    limit: int | None = None,
) -> Audit:
    """``near`` looks for near duplicates, two thirds of an audit's time (0.8 ms a row in all).
    ``count`` adds lengths in tokens, and rows that alone exceed ``limit``."""
    ours = Side.of(train)
    held = None if evaluation is None else Side.of(evaluation)
    outcomes = {
        "duplicates": duplicates(ours, near=near),
        "leakage": leakage(ours, held, near=near),
        "coverage": coverage(ours, held),
        "labels": labels(ours),
        "lengths": lengths(ours, held, count=count, limit=limit),
        "style": style(ours),
        "refusals": refusals(ours, held),
        "languages": languages(ours),
        "personal": personal(ours, held),
    }
    findings = [finding for outcome in outcomes.values() for finding in outcome.findings]
    return Audit(
        train=_audited(train),
        evaluation=None if evaluation is None else _audited(evaluation),
        counts=_counts(findings),
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        figures={name: outcome.figures for name, outcome in outcomes.items() if outcome.figures},
    )


def unreadable(*faulty: DataInvalid) -> Audit:
    """The audit of files that are no data: their faults are all there is to say."""
    findings = tuple(
        Finding(check="format", severity="error", what=fault.what, places=(fault.where,))
        for error in faulty
        for fault in error.faults
    )
    return Audit(train=None, evaluation=None, counts=_counts(findings), findings=findings, figures={})


def _counts(findings: Sequence[Finding]) -> dict[Severity, int]:
    return {name: sum(one.severity == name for one in findings) for name in SEVERITIES}


def _audited(dataset: Dataset[Any]) -> Audited:
    return Audited(name=dataset.name, digest=dataset.digest, rows=len(dataset.rows))
