"""What a training noticed about itself that a person should look at. It stops nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

ALARMS: Final = "alarms"
"""Their key in a run's proof; methods that watch themselves always have it."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """``name`` says which, for programs. ``step`` is 0 for what the rows show before the first one."""

    name: str
    step: int
    text: str

    def __str__(self) -> str:
        return f"step {self.step}: {self.text}"


def alarms_in(proof: Mapping[str, Any]) -> tuple[Alarm, ...]:
    return tuple(Alarm(**alarm) for alarm in proof.get(ALARMS, ()))


def as_proof(alarms: Iterable[Alarm]) -> dict[str, list[dict[str, Any]]]:
    """Their part of a proof."""
    return {ALARMS: [asdict(alarm) for alarm in alarms]}
