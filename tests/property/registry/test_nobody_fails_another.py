"""Whoever pushes writes the whole fingerprint. No fingerprint puts another tenant's honest version out of
service; and no noise that is claimed makes one version pass for another."""

from collections.abc import Iterable
from typing import TypeAlias

from hypothesis import assume, example, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from registry.digests import Digest
from registry.fingerprint import (
    MAX_NOISE,
    MIN_RATIO,
    MIN_SEPARATION,
    TOP_OBSERVED,
    Fingerprint,
    Probe,
    TopLogprobs,
    distance,
)
from registry.judgement import judge

COMMON = 3
PLACES = COMMON + 2
NOISE = 0.03
BASE = Digest.of(b"base")
VICTIM, ATTACKER = Digest.of(b"victim"), Digest.of(b"attacker")
EXPLAINED = MIN_SEPARATION / (MIN_RATIO + 1)
"""Times the noise: how far rounding takes an honest answer from its reference on the common probes."""

Claim: TypeAlias = tuple[float, set[int], dict[int, float]]

effects = st.lists(st.floats(-2, 2), min_size=PLACES, max_size=PLACES)
noises = st.floats(1e-300, 2 * MAX_NOISE)
tokens = st.integers(0, TOP_OBSERVED + 12)
claims = st.tuples(
    # How far from the victim's own reference, as an attacker may guess it; and tokens left out or put in,
    # with figures as low as may be.
    st.floats(-8 * NOISE, 8 * NOISE),
    st.one_of(st.just(set()), st.sets(tokens, max_size=4)),
    st.one_of(st.just({}), st.dictionaries(tokens, st.floats(-1e6, 0), max_size=2)),
)


def at(
    places: Iterable[int], shift: float, without: Iterable[int] = (), put_in: dict[int, float] | None = None
) -> dict[int, Claim]:
    return {place: (shift, set(without), put_in or {}) for place in places}


def _table(shift: float, length: int = TOP_OBSERVED + 8) -> TopLogprobs:
    return tuple((token, -3.0 - token / 16 - shift) for token in range(length))


def _altered(shift: float, without: set[int], put_in: dict[int, float]) -> TopLogprobs:
    kept = {token: figure for token, figure in _table(shift) if token not in without}
    return tuple((kept | put_in).items())


def _shown(shift: float, swapped: bool) -> TopLogprobs:
    """The likeliest; two that are nearly as likely may change places at the end."""
    last = TOP_OBSERVED if swapped else TOP_OBSERVED - 1
    return tuple(row for row in _table(shift) if row[0] < TOP_OBSERVED - 1 or row[0] == last)


def _fingerprint(own: dict[int, TopLogprobs], noise: float) -> Fingerprint:
    probes = [
        Probe(
            kind="random" if place < COMMON else "tenant",
            token_ids=(place,),
            own=table,
            base=_table(0.0),
        )
        for place, table in own.items()
    ]
    return Fingerprint(base=BASE, probes=tuple(probes), distance_to_base=0.5, noise={"bfloat16": noise})


@settings(max_examples=1000)
@drawn(
    effects=effects,
    rough=st.lists(st.floats(-3, 3), min_size=COMMON, max_size=COMMON),
    smooth=st.lists(st.floats(-EXPLAINED, EXPLAINED), min_size=PLACES - COMMON, max_size=PLACES - COMMON),
    swapped=st.lists(st.booleans(), min_size=PLACES, max_size=PLACES),
    claimed=st.dictionaries(st.integers(0, PLACES), claims, min_size=1),
    noise=noises,
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
# Without rounding in sight; on the one probe where it is large; and by a token that the engine does not show.
@example([0.5] * 5, [1.2] * 3, [0] * 2, [False] * 5, at(range(3), 4.7 * NOISE), 1e-3, "bfloat16")
@example([0.5] * 5, [3, 0, 0], [0] * 2, [False] * 5, at([0], 6 * NOISE), NOISE, "bfloat16")
@example([0.5] * 5, [3, 0, 0], [0] * 2, [False] * 5, at([0, 1], 6 * NOISE), NOISE, "bfloat16")
@example(
    [0.5] * 5, [1.2] * 3, [0] * 2, [True] * 5, at(range(3), 3 * NOISE, {19}, {30: -1e6}), NOISE, "bfloat16"
)
def test_no_fingerprint_puts_another_version_out_of_service(
    effects: list[float],
    rough: list[float],
    smooth: list[float],
    swapped: list[bool],
    claimed: dict[int, Claim],
    noise: float,
    dtype: str,
) -> None:
    """Unless it says what the engine answered: who knows that better than the reference does, to a third of
    the rounding, has the version."""
    assume(sum(map(abs, rough)) <= EXPLAINED * COMMON)
    honest = _fingerprint({place: _table(effect) for place, effect in enumerate(effects)}, NOISE)
    scale = NOISE if dtype == "bfloat16" else 2e-6
    shown = [
        _shown(effect + by * scale, swap)
        for effect, by, swap in zip(effects, [*rough, *smooth], swapped, strict=True)
    ]
    assume(judge(fingerprint=honest, observed=shown, siblings={}, dtype=dtype).passed)
    tables = {
        place: _altered(effects[place % PLACES] + shift, without, put_in)
        for place, (shift, without, put_in) in claimed.items()
    }
    shared = [place for place in tables if place < PLACES]
    if dtype != "float32" and shared:
        own = distance([shown[place] for place in shared], [_table(effects[place]) for place in shared])
        told = distance([shown[place] for place in shared], [tables[place] for place in shared])
        assume(MIN_RATIO * told >= own)
    attack = _fingerprint(tables, noise)
    found = judge(fingerprint=honest, observed=shown, siblings={ATTACKER: attack}, dtype=dtype)
    assert found.passed, found.reason


@drawn(
    effect=st.floats(0.3, 2),
    gap=st.floats(MIN_SEPARATION * NOISE, 2),
    off=st.floats(-NOISE, NOISE),
    claimed=noises,
    theirs=noises,
)
def test_no_noise_that_is_claimed_makes_another_version_pass(
    effect: float, gap: float, off: float, claimed: float, theirs: float
) -> None:
    """The slot holds the other one, and honest noises would tell the two apart."""
    expected = _fingerprint({place: _table(effect) for place in range(COMMON)}, claimed)
    other = _fingerprint({place: _table(effect + gap) for place in range(COMMON)}, theirs)
    shown = [_shown(effect + gap + off, False)] * COMMON
    assert not judge(fingerprint=expected, observed=shown, siblings={VICTIM: other}, dtype="bfloat16").passed
