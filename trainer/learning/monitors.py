"""Alarms over a run of reinforcement learning: what a rising reward does not show.

None of them stops a run: whether shorter answers are what was wanted, only a person knows. They are noted
when they are raised, and stand in the run's proof.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from trainer.alarms import Alarm, as_proof
from trainer.learning.remembered import Remembered
from trainer.rewards import Reward

WINDOW: Final = 3
"""Steps: the first so many are compared with the last so many, and a share must hold for as long."""
SILENT_GROUPS: Final = 0.8
DRIFT: Final = 0.3
"""Share by which answers may grow or shrink before it is called drift."""
GAINED: Final = 0.05
LOST: Final = 0.1
"""A reward that rises by the first while something that it does not count falls by the second was hacked."""
RUNAWAY: Final = 1.0
"""KL divergence in nats a token. Useful adapters of the demo stay below 0.3."""


Steps: TypeAlias = Sequence[Mapping[str, float]]


class Monitor:
    """Sees every step's figures; raises each alarm once.

    With a ``file``, what was seen survives a crash: a run that is picked up raises what it would have raised.
    """

    def __init__(
        self, rewards: Sequence[Reward], note: Callable[[str], None], *, file: Path | None = None
    ) -> None:
        self._uncounted = (*(f"reward.{one.name}" for one in rewards if not one.weight), "valid_json")
        self._note = note
        self._remembered = Remembered(file)
        self._seen: list[Mapping[str, float]] = []
        self.alarms: list[Alarm] = []

    def saw(self, step: int, figures: Mapping[str, float]) -> None:
        """``step`` counts from 1."""
        self._recall(step)
        self._remembered.add(step, figures)
        self._seen.append(dict(figures))
        for alarm in self._raised(step):
            self._note(str(alarm))

    def proof(self) -> dict[str, list[dict[str, Any]]]:
        """The alarms, as they stand in the proof of the run."""
        self._recall(None)  # of a run that had nothing left to do but to save
        return as_proof(self.alarms)

    def _recall(self, step: int | None) -> None:
        for number, figures in self._remembered.before(step):
            self._seen.append(figures)
            self._raised(number)

    def _raised(self, step: int) -> list[Alarm]:
        known = {alarm.name for alarm in self.alarms}
        fresh = [Alarm(name, step, text) for name, text in self._found() if name not in known]
        self.alarms += fresh
        return fresh

    def _found(self) -> Iterator[tuple[str, str]]:
        first, last = self._seen[:WINDOW], self._seen[-WINDOW:]
        if len(self._seen) >= WINDOW:
            yield from _silent(last)
            yield from _ran_away(last)
        if len(self._seen) > WINDOW:
            yield from _drifted(first, last)
        if len(self._seen) >= 2 * WINDOW:
            yield from _hacked(first, last, self._uncounted)


def _silent(last: Steps) -> Iterator[tuple[str, str]]:
    if all(one.get("zero_variance", 0.0) > SILENT_GROUPS for one in last):
        share = f"for {WINDOW} steps, more than {SILENT_GROUPS:.0%} of the groups had equal rewards"
        advice = "filter the questions by pass rate, raise the temperature or use a finer reward"
        yield "zero_variance", f"{share} and taught nothing: {advice}"


def _ran_away(last: Steps) -> Iterator[tuple[str, str]]:
    if all(one.get("kl", 0.0) > RUNAWAY for one in last):
        text = f"the model is more than {RUNAWAY:g} nats a token away from its reference"
        yield "kl_runaway", f"{text}: raise kl or lower learning_rate"


def _drifted(first: Steps, last: Steps) -> Iterator[tuple[str, str]]:
    # The first step alone: only its answers are those of an untouched start, and some rewards need two more
    # to halve them.
    before, after = _mean(first[:1], "length"), _mean(last, "length")
    if before > 0 and abs(after / before - 1) > DRIFT:
        way = "shorter" if after < before else "longer"
        text = f"answers became {abs(after / before - 1):.0%} {way} ({before:.0f} -> {after:.0f} tokens)"
        yield "length_drift", f"{text}: the reward may be won by length alone, so read the samples"


def _hacked(first: Steps, last: Steps, uncounted: Sequence[str]) -> Iterator[tuple[str, str]]:
    if _mean(last, "reward") <= _mean(first, "reward") + GAINED:
        return
    for name in uncounted:
        before, after = _mean(first, name), _mean(last, name)
        if any(name in one for one in first) and after < before - LOST:
            what = name.removeprefix("reward.")
            fell = f"{what}, which it does not count, fell from {before:.0%} to {after:.0%}"
            yield f"reward_hacking.{what}", f"the reward rose while {fell}"


def _mean(steps: Steps, name: str) -> float:
    values = [one[name] for one in steps if name in one]
    return statistics.fmean(values) if values else 0.0
