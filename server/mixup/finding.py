"""What was seen of one danger, counted while it is looked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from server.mixup.dangers import Outcome
from server.mixup.judging import Judgement, References
from server.mixup.wire import Reply

_EXAMPLES: Final = 5
_TOO_MANY: Final = 429
ENOUGH: Final = 0.95
"""Share of what was asked that has to be right before a danger counts as handled."""


@dataclass(frozen=True, slots=True)
class Example:
    """One wrong answer: who was asked, whose it was. Never what was asked or answered."""

    request: str
    asked: str
    kind: str
    nearest: str
    at: int
    own: float
    other: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    danger: str
    outcome: Outcome
    why: str
    requests: int = 0
    judged: int = 0
    """Of the requests: those whose answer's content was judged, and not its status or time alone."""
    mixups: int = 0
    unclear: int = 0
    refused: int = 0
    failed: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()


@dataclass
class Tally:
    """Answers to judge, of one danger."""

    danger: str
    references: References
    requests: int = 0
    worded: int = 0
    """Of the requests: those that were asked for their words."""
    judged: int = 0
    """Of the requests: those that were answered with content, and judged by it."""
    own: int = 0
    mixups: int = 0
    unclear: int = 0
    refused: int = 0
    failed: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    _wrong: list[Example] = field(default_factory=list)

    def count(self, reply: Reply, *, weights: str, prompt: str) -> Judgement | None:
        """The worst judgement of the reply's choices; None where there were no words to judge."""
        self.requests += 1
        self.worded += 1
        name = f"{self.danger}/{self.requests}"
        if not reply.answered:
            if 400 <= reply.status < 500:
                self.refused += 1
                if reply.status == _TOO_MANY:
                    self.add("limited")
            else:
                self.failed += 1
                begun = " begun" if reply.first_seconds else ""
                self.add(f"failed: {reply.status} {reply.code}".strip() + begun)
            return None
        if reply.moved:
            self.unclear += 1
            self.add("of a version that came meanwhile")
            return None
        self.judged += 1
        found = [self.references.judge(seen, weights=weights, prompt=prompt) for seen in reply.traces]
        worst = max(found, key=lambda each: (each.wrong, each.kind == "unclear", each.own))
        if worst.wrong:
            self.mixups += 1
            other = worst.other if worst.nearest else 0.0
            self._wrong.append(
                Example(
                    name, weights, worst.kind, worst.nearest, worst.at, round(worst.own, 4), round(other, 4)
                )
            )
        elif worst.kind == "unclear":
            self.unclear += 1
        else:
            self.own += 1
        return worst

    def add(self, figure: str, by: float = 1) -> None:
        self.figures[figure] = self.figures.get(figure, 0) + by

    def note(self, status: int) -> None:
        """A request that is about its status alone."""
        self.requests += 1
        if 400 <= status < 500:
            self.refused += 1
        elif status == 0 or status >= 500:
            self.failed += 1

    def finding(self, outcome: Outcome, why: str) -> Finding:
        return Finding(
            danger=self.danger,
            outcome=outcome,
            why=why,
            requests=self.requests,
            judged=self.judged,
            mixups=self.mixups,
            unclear=self.unclear,
            refused=self.refused,
            failed=self.failed,
            figures=dict(self.figures),
            examples=tuple(sorted(self._wrong, key=lambda each: -each.own)[:_EXAMPLES]),
        )

    def by_answers(self, *, handled: str, refusing_handles: bool = False, excused: int = 0) -> Finding:
        """The usual verdict: any wrong answer makes it present, and a few right ones prove nothing.

        ``refusing_handles``: beside answers a refusal is right, too. ``excused``: failures that the danger
        allows for."""
        if self.mixups:
            return self.finding("present", f"{self.mixups} of {self.requests} answers came from elsewhere")
        asked = self.worded - excused
        right = self.own + (self.refused if refusing_handles else 0)
        if self.own and right >= ENOUGH * asked:
            return self.finding("handled", handled)
        return self.finding(
            "not_tested",
            f"only {self.own} of {asked} answers were surely right: {self.refused} refused, "
            f"{self.failed} failed, {self.unclear} too alike to judge",
        )
