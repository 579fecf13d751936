"""What a run tells whoever watches: a terminal draws bars from it, tests collect it, a service may log it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class StageStarted:
    stage: str


@dataclass(frozen=True, slots=True)
class StageAdvanced:
    """``done`` of ``total`` units (steps or cases); ``metrics`` are the latest figures, for people."""

    stage: str
    done: int
    total: int
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageFinished:
    """``reused``: an earlier run of the same plan had finished it, and ``seconds`` is what that took."""

    stage: str
    seconds: float
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence worth reading that stops nothing."""

    stage: str
    text: str


Event: TypeAlias = StageStarted | StageAdvanced | StageFinished | Note

Progress: TypeAlias = Callable[[Event], None]
"""Where events go. It must be quick and must not raise: training waits for it."""


def ignore(event: Event) -> None:
    """A sink for callers who do not watch."""
