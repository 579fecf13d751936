"""A patience that no clock is asked for."""

from collections.abc import Callable
from dataclasses import dataclass, field

from registry.promotions import Readiness
from server.assembly.awaiting import Patience


@dataclass
class Waiting:
    """Time that passes only while somebody waits, and what happens meanwhile."""

    now: float = 0.0
    plan: dict[int, Callable[[], object]] = field(default_factory=dict)
    """Nth pause -> what happens in it."""
    pauses: int = 0
    seen: list[Readiness] = field(default_factory=list)

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.pauses += 1
        self.plan.get(self.pauses, lambda: None)()

    def patience(self, seconds: float) -> Patience:
        return Patience(seconds, self.seen.append, ticks=lambda: self.now, pause=self.pause)
