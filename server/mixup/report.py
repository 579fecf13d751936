"""What the suite says: one document for machines, one table for people."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from server.mixup.dangers import DANGERS, Outcome
from server.mixup.errors import ReportUnusable
from server.mixup.finding import Finding

SCHEMA: Final = "tenon.mixup/v1"
OUTCOMES: Final[tuple[Outcome, ...]] = ("handled", "present", "not_applicable", "not_tested")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    target: str
    """What was asked: a word or a URL."""
    seed: int
    findings: tuple[Finding, ...]
    seconds: float
    noise: float
    """The largest distance between two quiet recordings of one adapter, in nats."""
    gap: float
    """The smallest distance between two adapters, in nats: how well a mix-up can be told."""
    server: Mapping[str, str] = field(default_factory=dict)
    """What the server said of itself: version, and what it was started with."""

    @property
    def requests(self) -> int:
        return sum(found.requests for found in self.findings)

    @property
    def judged(self) -> int:
        return sum(found.judged for found in self.findings)

    @property
    def mixups(self) -> int:
        return sum(found.mixups for found in self.findings)

    @property
    def unclear(self) -> int:
        return sum(found.unclear for found in self.findings)

    @property
    def present(self) -> tuple[str, ...]:
        return tuple(found.danger for found in self.findings if found.outcome == "present")

    @property
    def in_vain(self) -> tuple[str, ...]:
        """Looked for, and lost in answers that failed or could not be told."""
        return tuple(
            found.danger
            for found in self.findings
            if found.outcome == "not_tested" and (found.failed or found.unclear)
        )

    @property
    def passed(self) -> bool:
        """No mix-up, nothing present, and something proved: a suite that tested nothing has not passed."""
        proved = any(found.outcome == "handled" for found in self.findings)
        return proved and not self.mixups and not self.present and not self.in_vain

    def outcome(self, danger: str) -> Outcome:
        return next(found.outcome for found in self.findings if found.danger == danger)

    def verdicts(self) -> dict[str, Outcome]:
        return {found.danger: found.outcome for found in self.findings}

    def document(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "target": self.target,
            "passed": self.passed,
            "requests": self.requests,
            "judged": self.judged,
            "mixups": self.mixups,
            "unclear": self.unclear,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "noise": self.noise,
            "gap": self.gap,
            "server": dict(self.server),
            "verdicts": self.verdicts(),
            "findings": [asdict(found) for found in self.findings],
        }

    def rows(self) -> list[list[str]]:
        return [
            [
                found.danger,
                DANGERS[found.danger].title,
                found.outcome.replace("_", " "),
                str(found.requests),
                str(found.judged),
                str(found.mixups),
                str(found.unclear),
                found.why,
            ]
            for found in self.findings
        ]


COLUMNS: Final = ("", "danger", "verdict", "requests", "judged", "mix-ups", "unclear", "why")


def expectations(data: bytes) -> dict[str, Outcome]:
    """``--expect``: a report of before, or only its ``verdicts``. Raises ReportUnusable."""
    try:
        document = json.loads(data)
        verdicts = document.get("verdicts", document)
        found = {str(danger): outcome for danger, outcome in verdicts.items()}
    except (ValueError, AttributeError):
        raise ReportUnusable("what is expected is not a report, nor a map of verdicts") from None
    if unknown := sorted(set(found) - set(DANGERS)):
        raise ReportUnusable(f"no danger is called {unknown[0]!r}")
    if odd := sorted(str(each) for each in found.values() if each not in OUTCOMES):
        raise ReportUnusable(f"no verdict is called {odd[0]!r}")
    return found


def differences(report: Report, expected: Mapping[str, Outcome]) -> list[str]:
    """In words; empty when every named danger has the verdict that was expected of it."""
    return [
        f"{danger}: expected {outcome.replace('_', ' ')}, found {report.outcome(danger).replace('_', ' ')}"
        for danger, outcome in expected.items()
        if report.outcome(danger) != outcome
    ]
