"""Is the adapter in that slot the expected one? Decides over what was observed; asks nobody.

Fails closed: a figure that is not finite, an observation that cannot be compared or a rival that is too close
is a failed finding, never an exception and never a pass.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from registry.digests import Digest
from registry.fingerprint import EXACT_F32, MIN_RATIO, Fingerprint, Nearest, TopLogprobs, distance

UNMEASURED = sys.float_info.max
"""Stands for a distance that could not be measured: as far as can be, and unlike NaN it can be signed."""


@dataclass(frozen=True, slots=True)
class Finding:
    own_distance: float
    nearest: Nearest
    strength: Literal["exact", "ratio", "failed"]
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class _Rival:
    what: str
    distance: float
    own: float
    """Distance to the own reference on the same probes: only these two can be compared."""

    @property
    def ratio(self) -> float:
        if self.own == 0:
            return math.inf if self.distance > 0 else 0.0
        return self.distance / self.own


def judge(
    *,
    fingerprint: Fingerprint,
    observed: Sequence[TopLogprobs],
    siblings: Mapping[Digest, Fingerprint],
    dtype: str,
) -> Finding:
    """``observed``: one per probe of ``fingerprint``, in its order. ``siblings``: the other versions that the
    slot could hold instead, without the expected version itself.

    The base is compared on all probes, a sibling on the ``random`` probes that both fingerprints have; one
    that shares none is named in the reason. In float32 the own distance must be below EXACT_F32 and every
    rival's above it; in other types every rival must be MIN_RATIO times farther.
    """
    try:
        own, rivals, uncompared = _measure(fingerprint, observed, siblings)
    except ValueError as error:
        return _failed(str(error))
    figures = [own, *(figure for rival in rivals for figure in (rival.distance, rival.own))]
    if not all(math.isfinite(figure) for figure in figures):
        return _failed("a log-probability is not a finite number")
    closest = min(rivals, key=lambda rival: rival.distance)
    nearest = Nearest(what=closest.what, distance=closest.distance)
    strength, reason = _decide(own, rivals, dtype)
    if uncompared:
        reason += f"; {uncompared} sibling(s) share no random probe and were not compared"
    return Finding(
        own_distance=own, nearest=nearest, strength=strength, passed=strength != "failed", reason=reason
    )


def _decide(
    own: float, rivals: Sequence[_Rival], dtype: str
) -> tuple[Literal["exact", "ratio", "failed"], str]:
    close = min(rivals, key=lambda rival: rival.ratio)
    figures = f"own distance {own:.3g}, {close.what} at {close.distance:.3g}"
    if dtype == "float32":
        if own >= EXACT_F32:
            return "failed", f"{figures}: float32 must be within {EXACT_F32:g} of the reference"
        if any(rival.distance <= rival.own or rival.distance < EXACT_F32 for rival in rivals):
            return "failed", f"{figures}: the two cannot be told apart"
        return "exact", f"{figures}: equal to rounding"
    if dtype not in ("bfloat16", "float16"):
        return "failed", f"{figures}: no rule for the type {dtype[:40]!r}"
    if close.ratio < MIN_RATIO:
        return "failed", f"{figures}: only {close.ratio:.3g} times farther, {MIN_RATIO:g} needed"
    return "ratio", f"{figures}: {close.ratio:.3g} times farther"


def _measure(
    fingerprint: Fingerprint, observed: Sequence[TopLogprobs], siblings: Mapping[Digest, Fingerprint]
) -> tuple[float, list[_Rival], int]:
    """(own distance, rivals with the base first, siblings without a common probe)."""
    if not _all_finite(
        [*observed, *(refs for probe in fingerprint.probes for refs in (probe.own, probe.base))]
    ):
        raise ValueError("a log-probability is not a finite number")
    own = distance(observed, [probe.own for probe in fingerprint.probes])
    rivals = [_Rival("base", distance(observed, [probe.base for probe in fingerprint.probes]), own)]
    uncompared = 0
    for version, sibling in sorted(siblings.items()):
        theirs = {probe.token_ids: probe.own for probe in sibling.probes if probe.kind == "random"}
        shared = [
            (seen, probe.own, theirs[probe.token_ids])
            for seen, probe in zip(observed, fingerprint.probes, strict=True)
            if probe.kind == "random" and probe.token_ids in theirs
        ]
        if not shared:
            uncompared += 1
            continue
        seen, ours, other = zip(*shared, strict=True)
        if not _all_finite(other):
            raise ValueError(f"the fingerprint of {version} holds a number that is not finite")
        rivals.append(_Rival(version, distance(seen, other), distance(seen, ours)))
    return own, rivals, uncompared


def _all_finite(tables: Sequence[TopLogprobs]) -> bool:
    return all(math.isfinite(logprob) for table in tables for _, logprob in table)


def _failed(reason: str) -> Finding:
    return Finding(
        own_distance=UNMEASURED,
        nearest=Nearest(what="base", distance=UNMEASURED),
        strength="failed",
        passed=False,
        reason=reason,
    )
