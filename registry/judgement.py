"""Is the adapter in that slot the expected one? Decides over what was observed; asks nobody.

Fails closed: a figure that is not finite, an observation that cannot be compared or a rival that is too close
is a failed finding, never an exception and never a pass.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from registry.digests import Digest
from registry.fingerprint import (
    EXACT_F32,
    MAX_NOISE,
    MAX_NOISES,
    MIN_RATIO,
    MIN_SEPARATION,
    STRAY_NOISES,
    ZERO_EFFECT,
    Fingerprint,
    Nearest,
    Strength,
    TopLogprobs,
    comparable,
    distance,
)

UNMEASURED = sys.float_info.max
"""Stands for a distance that could not be measured: as far as can be, and unlike NaN it can be signed."""
BASE: Final = "base"
ADAPTER: Final = "adapter"
"""What a bare base is compared with: :func:`judge_base`."""


@dataclass(frozen=True, slots=True)
class Finding:
    own_distance: float
    nearest: Nearest
    strength: Strength
    passed: bool
    reason: str
    noise: float | None = None
    """What it was measured against; None in float32 and where no noise is known."""


@dataclass(frozen=True, slots=True)
class _Rival:
    what: str
    distance: float
    own: float
    """Distance to the own reference on the same probes: only these two can be compared."""
    gap: float
    """Between the two references, of the tokens that were observed on the same probes: so it is never more
    than ``distance`` and ``own`` together, whatever a reference holds that the engine did not show."""

    @property
    def ratio(self) -> float:
        if self.own == 0:
            return math.inf if self.distance > 0 else 0.0
        return self.distance / self.own


class _Row(NamedTuple):
    seen: TopLogprobs
    own: TopLogprobs
    other: TopLogprobs


def judge(
    *,
    fingerprint: Fingerprint,
    observed: Sequence[TopLogprobs],
    siblings: Mapping[Digest, Fingerprint],
    dtype: str,
) -> Finding:
    """``observed``: one per probe of ``fingerprint``, in its order. ``siblings``: the other versions that the
    slot could hold instead, without the expected version itself.

    The base is compared on all probes, a sibling where it is :func:`comparable`; how many are not is said in
    the reason. In float32 the own distance must be below EXACT_F32 and every rival's above it; in other types
    every rival must be MIN_RATIO times farther. A rival whose *reference* is too close for that leaves a weak
    finding, if the own distance is what rounding explains; an adapter without effect is never found at all.
    """
    try:
        rivals, uncompared = _rivals(fingerprint, observed, siblings)
    except ValueError as error:
        return _failed(str(error))
    if not rivals[0].gap >= ZERO_EFFECT:
        return _failed(f"the version is {rivals[0].gap:.3g} from its base: it has no effect to recognise")
    return _finding(rivals, dtype, fingerprint.trusted_noise(dtype), uncompared)


def judge_base(*, fingerprint: Fingerprint, observed: Sequence[TopLogprobs], dtype: str) -> Finding:
    """Is it the bare base that answered the probes of ``fingerprint``, and not the adapter it is of?

    Any version's fingerprint serves; one that is far from the base says most. By the rules of :func:`judge`,
    with the two references in each other's place.
    """
    try:
        rows = [_Row(*row) for row in _zipped(observed, [(p.base, p.own) for p in fingerprint.probes])]
        rival = _rival(ADAPTER, rows)
    except ValueError as error:
        return _failed(str(error))
    return _finding([rival], dtype, fingerprint.trusted_noise(dtype), 0)


def plausible(
    *, dtype: str, own_distance: float, nearest: Nearest, strength: Strength, noise: float | None
) -> bool:
    """Whether the figures carry a claim to have passed: a signature proves who says it, not that it makes
    sense. By the rules of :func:`judge`, as far as they can be applied to what is left of it."""
    own = own_distance if nearest.own is None else nearest.own
    if not all(0 <= figure < math.inf for figure in (own_distance, own, nearest.distance)):
        return False
    if dtype == "float32":
        if max(own_distance, own) >= EXACT_F32:
            return False
        same = nearest.distance <= own or nearest.distance < EXACT_F32
        return strength == ("weak" if same else "exact") and not (same and nearest.what == BASE)
    explained = MAX_NOISE if noise is None else noise
    if not (0 < explained <= MAX_NOISE and own_distance <= STRAY_NOISES * explained):
        return False
    if strength == "ratio":
        return nearest.distance > own and nearest.distance >= MIN_RATIO * own
    # Of the references that it could be as well, the nearest one need not be among them.
    excused = noise is not None and (own <= MAX_NOISES * noise or nearest.distance >= MIN_RATIO * own)
    return strength == "weak" and excused and own <= MIN_RATIO * nearest.distance


def _finding(rivals: Sequence[_Rival], dtype: str, noise: float | None, uncompared: int) -> Finding:
    if not all(math.isfinite(figure) for each in rivals for figure in (each.distance, each.own, each.gap)):
        return _failed("a log-probability is not a finite number")
    closest = min(rivals, key=lambda rival: rival.distance)
    strength, reason = _decide(rivals, dtype, noise)
    if uncompared:
        reason += f"; {uncompared} sibling(s) have no comparable reference"
    return Finding(
        own_distance=rivals[0].own,
        nearest=Nearest(
            what=closest.what,
            distance=closest.distance,
            own=None if closest.own == rivals[0].own else closest.own,
        ),
        strength=strength,
        passed=strength != "failed",
        reason=reason,
        noise=noise,
    )


def _decide(rivals: Sequence[_Rival], dtype: str, noise: float | None) -> tuple[Strength, str]:
    close = min(rivals, key=lambda rival: rival.ratio)
    own = rivals[0].own
    figures = f"own distance {own:.3g}, {close.what} at {close.distance:.3g}"
    if dtype == "float32":
        return _exact(rivals, figures)
    if dtype not in ("bfloat16", "float16"):
        return "failed", f"{figures}: no rule for the type {dtype[:40]!r}"
    explained = MAX_NOISE if noise is None else noise
    if own > STRAY_NOISES * explained:
        return "failed", f"{figures}: rounding explains {explained:.3g}, and this is neither"
    if close.ratio >= MIN_RATIO:
        return "ratio", f"{figures}: {close.ratio:.3g} times farther"
    unclear = [rival for rival in rivals if rival.ratio < MIN_RATIO]
    if noise is not None and all(_excused(rival, noise) for rival in unclear):
        names = ", ".join(rival.what for rival in unclear)
        return "weak", f"{figures}: within the noise of {noise:.3g}, indistinguishable from {names}"
    return "failed", f"{figures}: only {close.ratio:.3g} times farther, {MIN_RATIO:g} needed"


def _exact(rivals: Sequence[_Rival], figures: str) -> tuple[Strength, str]:
    if any(rival.own >= EXACT_F32 for rival in rivals):
        return "failed", f"{figures}: float32 must be within {EXACT_F32:g} of the reference"
    same = [rival for rival in rivals if rival.distance <= rival.own or rival.distance < EXACT_F32]
    # Two references that far apart cannot both be within EXACT_F32 of one answer.
    if any(rival.what in (BASE, ADAPTER) or rival.gap >= 2 * EXACT_F32 for rival in same):
        return "failed", f"{figures}: the two cannot be told apart"
    if same:
        return "weak", f"{figures}: equal to rounding, indistinguishable from {same[0].what}"
    return "exact", f"{figures}: equal to rounding"


def _excused(rival: _Rival, noise: float) -> bool:
    """Too close to tell by behaviour; and neither is the answer farther off than rounding makes it, nor does
    it look like the rival.

    The noise is the expected version's own. A rival has no say in it: whoever pushes one would put others out
    of service by claiming that there is no rounding. And who claims too much hides nobody, for what gives a
    rival's answers looks like the rival.
    """
    return (
        rival.gap < MIN_SEPARATION * noise
        and rival.own <= MAX_NOISES * noise
        and rival.own <= MIN_RATIO * rival.distance
    )


def _rivals(
    fingerprint: Fingerprint,
    observed: Sequence[TopLogprobs],
    siblings: Mapping[Digest, Fingerprint],
) -> tuple[list[_Rival], int]:
    """(rivals with the base first, how many siblings have no reference to compare with)."""
    rows = _zipped(observed, [(probe.own, probe.base) for probe in fingerprint.probes])
    rivals = [_rival(BASE, rows)]
    uncompared = 0
    for version, sibling in sorted(siblings.items()):
        shared = [
            _Row(rows[place].seen, rows[place].own, theirs)
            for place, theirs in comparable(fingerprint, sibling)
        ]
        rival = _rival(version, shared) if _usable([row.other for row in shared]) else None
        # What is wrong with a sibling's reference must cost that sibling, and nobody else.
        if rival is not None and math.isfinite(rival.distance) and math.isfinite(rival.gap):
            rivals.append(rival)
        else:
            uncompared += 1
    return rivals, uncompared


def _zipped(
    observed: Sequence[TopLogprobs], references: Sequence[tuple[TopLogprobs, TopLogprobs]]
) -> list[_Row]:
    if len(observed) != len(references):
        raise ValueError(f"{len(observed)} observed probes, {len(references)} in the reference")
    rows = [_Row(seen, *pair) for seen, pair in zip(observed, references, strict=True)]
    if not _all_finite([table for row in rows for table in row]):
        raise ValueError("a log-probability is not a finite number")
    return rows


def _rival(what: str, rows: Sequence[_Row]) -> _Rival:
    seen, own, other = zip(*rows, strict=True) if rows else ((), (), ())
    return _Rival(
        what,
        distance=distance(seen, other),
        own=distance(seen, own),
        gap=distance([_of(row.own, row.seen) for row in rows], other),
    )


def _of(reference: TopLogprobs, seen: TopLogprobs) -> TopLogprobs:
    """What ``reference`` has for the tokens that were observed: as :func:`distance` reads it."""
    table = dict(reference)
    floor = min(table.values())
    return tuple((token, table.get(token, floor)) for token, _ in seen)


def _usable(references: Sequence[TopLogprobs]) -> bool:
    return bool(references) and all(references) and _all_finite(references)


def _all_finite(tables: Sequence[TopLogprobs]) -> bool:
    return all(math.isfinite(logprob) for table in tables for _, logprob in table)


def _failed(reason: str) -> Finding:
    return Finding(
        own_distance=UNMEASURED,
        nearest=Nearest(what=BASE, distance=UNMEASURED),
        strength="failed",
        passed=False,
        reason=reason,
    )
