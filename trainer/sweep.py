"""The same recipe with some of its keys varied: what to train, and what may be said about the winner."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from registry.evidence import Metric
from trainer.errors import SweepInvalid
from trainer.trained import TrainedRun

_LARGEST: Final = 64
"""Variants. A grid grows faster than one thinks, and each of them is a whole training."""
_LESS_IS_MORE: Final = frozenset({"words", "kl"})
"""Metrics by which nobody is best: more of them is neither better nor worse."""
HALF: Final = 1.96
"""Half a 95 % interval in standard errors."""


@dataclass(frozen=True, slots=True)
class Variant:
    overrides: tuple[str, ...]
    """As after ``-o``: ``lora.rank=8``."""

    def __str__(self) -> str:
        return " ".join(self.overrides)


@dataclass(frozen=True, slots=True)
class Swept:
    variant: Variant
    run: TrainedRun
    parameters: int
    """Weights that were trained."""


def variants(lines: Sequence[str]) -> tuple[Variant, ...]:
    """The grid over ``key=value,value`` lines, the last key running fastest. Raises SweepInvalid."""
    axes = [_axis(line) for line in lines]
    keys = [axis[0].partition("=")[0] for axis in axes]
    if len(set(keys)) != len(keys):
        raise SweepInvalid("each key may be swept once")
    if (count := math.prod(map(len, axes))) > _LARGEST:
        raise SweepInvalid(f"{count} variants are too many (at most {_LARGEST})")
    return tuple(map(Variant, itertools.product(*axes)))


def _axis(line: str) -> tuple[str, ...]:
    key, equals, text = line.partition("=")
    values = _split(text)
    if not key.strip() or not equals or not all(values):
        raise SweepInvalid(f"{line[:80]!r} names no values")
    if len(set(values)) != len(values):
        raise SweepInvalid(f"{line[:80]!r} names a value twice")
    return tuple(f"{key.strip()}={value}" for value in values)


def _split(text: str) -> list[str]:
    """At commas, but not at those inside of brackets: a value may be a list."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "[{") - (sign in "]}")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def shared_metrics(swept: Sequence[Swept]) -> list[str]:
    """What every variant measured, in one order."""
    return sorted(set.intersection(*(set(one.run.metrics) for one in swept)))


def check_metric(name: str) -> None:
    """Raises SweepInvalid for a metric of which more is not better; before anything is trained."""
    if name in _LESS_IS_MORE:
        raise SweepInvalid(f"no variant is best by {name}", hint="choose a metric of which more is better")


def best(swept: Sequence[Swept], metric: str) -> tuple[Swept, tuple[Swept, ...]]:
    """(the variant with the largest value, the first of equals; those it cannot be told from at 95 %).

    All are asked the same cases, so a difference is surer than it is here, where they count as independent:
    too many are called equal rather than too few. Raises SweepInvalid.
    """
    if metric not in shared_metrics(swept):
        raise SweepInvalid(
            f"{metric!r} was not measured of every variant",
            hint=f"measured were {', '.join(shared_metrics(swept))}",
        )
    winner = max(swept, key=lambda one: one.run.metrics[metric].value)
    top = winner.run.metrics[metric]
    close = tuple(one for one in swept if one is not winner and not _apart(top, one.run.metrics[metric]))
    return winner, close


def _apart(one: Metric, other: Metric) -> bool:
    return abs(one.value - other.value) > HALF * math.hypot(one.stderr, other.stderr)
