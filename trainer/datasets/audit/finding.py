"""What a check says."""

from typing import Any, Final, Literal, TypeAlias

from pydantic import Field

from registry.canonical import Document

Severity: TypeAlias = Literal["error", "warning", "note"]
SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")


class Finding(Document):
    """One sentence, and where to look. An error makes the audit fail: the result would prove nothing."""

    check: str
    severity: Severity
    what: str
    places: tuple[str, ...] = ()
    """``train.jsonl:3``, all of them."""


class Outcome(Document):
    """Of one check: findings, and figures for tables whether or not something was found."""

    findings: tuple[Finding, ...] = ()
    figures: dict[str, Any] = Field(default_factory=dict)
