"""What routers tell each other of the limits they keep: how much each has let through, window by window.

A router reports what it counted itself, in absolute numbers: reported twice, or after a lost answer, they are
the same numbers, so nothing is ever counted twice.
"""

from typing import Literal, TypeAlias

from pydantic import Field

from registry.canonical import Document
from registry.usage import MOST

SLICE_SECONDS = 5
"""A minute is counted in slices, as fine as one row each may be."""
SLICES = 60 // SLICE_SECONDS + 1
"""That 60 seconds touch, wherever in a slice they begin: their sum is never less than any minute's."""
DAY_SECONDS = 86_400
SKEW_SECONDS = 60
"""How far the clocks of routers may differ before a slice is forgotten too early."""
BEAT_SECONDS = 10.0
"""A count of what runs now is believed so long: then its router is gone."""

Kind: TypeAlias = Literal["requests", "tokens", "day", "running", "router"]
"""``requests`` and ``tokens`` of a slice of time, tokens of a ``day``, requests ``running`` now, and the
``router`` that is there."""


class Count(Document):
    subject: str = Field(pattern=r"^((tenant|key)/[a-z0-9][a-z0-9_-]{0,62})?$")
    """``tenant/bank_a`` or ``key/<id>``; empty for what is of no tenant."""
    kind: Kind
    slot: int = Field(ge=0, le=1 << 40)
    """Number of the slice or day since 1970; 0 for what runs now."""
    value: int = Field(ge=0, le=MOST)


class CountReport(Document):
    """What one router counted, and whose counts it wants to hear of."""

    writer: str = Field(min_length=1, max_length=200)
    """Another one at each start: what was counted before a restart stays counted."""
    seq: int = Field(ge=0)
    """Grows with each report: one that arrives late changes nothing."""
    counts: tuple[Count, ...] = Field(default=(), max_length=10_000)
    about: tuple[str, ...] = Field(default=(), max_length=10_000)
    """Subjects."""


class CountAnswer(Document):
    """Sums of what all *other* routers counted, of the subjects that were asked about."""

    counts: tuple[Count, ...] = ()
    routers: int = Field(ge=0)
    """Others that reported lately."""


def until(count: Count, now: float) -> float:
    """Seconds since 1970 at which a count may be forgotten."""
    if count.kind in ("running", "router"):
        return now + BEAT_SECONDS
    if count.kind == "day":
        return float((count.slot + 1) * DAY_SECONDS + SKEW_SECONDS)
    return float((count.slot + SLICES) * SLICE_SECONDS + SKEW_SECONDS)
