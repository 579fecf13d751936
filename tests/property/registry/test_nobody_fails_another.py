"""Whoever pushes writes the whole fingerprint. No fingerprint puts another tenant's honest version out of
service; and none makes it pass for another one."""

from hypothesis import assume
from hypothesis import given as drawn
from hypothesis import strategies as st

from registry.digests import Digest
from registry.fingerprint import (
    MAX_NOISE,
    MIN_SEPARATION,
    TOP_OBSERVED,
    Fingerprint,
    Probe,
    TopLogprobs,
)
from registry.judgement import judge

COMMON = 3
NOISE = 0.03
BASE = Digest.of(b"base")
VICTIM, ATTACKER = Digest.of(b"victim"), Digest.of(b"attacker")
EXPLAINED = 1.25
"""Times the noise: how far rounding takes an honest answer from its reference, on the common probes."""

offsets = st.floats(-2, 2, allow_nan=False)


def _table(shift: float) -> TopLogprobs:
    return tuple((token, -3.0 - shift) for token in range(TOP_OBSERVED))


def _probe(place: int, shift: float) -> Probe:
    return Probe(
        kind="random" if place < COMMON else "tenant",
        token_ids=(place,),
        own=_table(shift),
        base=_table(0.0),
    )


def _fingerprint(effects: dict[int, float], noise: float) -> Fingerprint:
    return Fingerprint(
        base=BASE,
        probes=tuple(_probe(place, shift) for place, shift in effects.items()),
        distance_to_base=0.5,
        noise={"bfloat16": noise},
    )


@drawn(
    effects=st.lists(offsets, min_size=COMMON + 2, max_size=COMMON + 2),
    rounding=st.lists(
        st.floats(-EXPLAINED * NOISE, EXPLAINED * NOISE), min_size=COMMON + 2, max_size=COMMON + 2
    ),
    claims=st.dictionaries(st.integers(0, COMMON + 4), offsets, min_size=1),
    claimed=st.floats(1e-300, 2 * MAX_NOISE),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_no_fingerprint_puts_another_version_out_of_service(
    effects: list[float], rounding: list[float], claims: dict[int, float], claimed: float, dtype: str
) -> None:
    """Unless it says exactly what the engine answered: who knows that better than the reference does, to a
    third of the rounding, has the version."""
    honest = _fingerprint(dict(enumerate(effects)), NOISE)
    off = [each if dtype == "bfloat16" else each * 1e-6 for each in rounding]
    shown = [_table(effect + by)[:TOP_OBSERVED] for effect, by in zip(effects, off, strict=True)]
    assume(judge(fingerprint=honest, observed=shown, siblings={}, dtype=dtype).passed)
    attack = _fingerprint(claims, claimed)
    shared = [place for place in claims if place < len(effects)]
    own = sum(abs(off[place]) for place in shared)
    assume(dtype == "float32" or 3 * sum(abs(effects[p] + off[p] - claims[p]) for p in shared) >= own)
    found = judge(fingerprint=honest, observed=shown, siblings={ATTACKER: attack}, dtype=dtype)
    assert found.passed, found.reason


@drawn(
    effect=st.floats(0.3, 2),
    gap=st.floats(MIN_SEPARATION * NOISE, 2),
    off=st.floats(-NOISE, NOISE),
    claimed=st.floats(1e-300, 2 * MAX_NOISE),
    theirs=st.floats(1e-300, 2 * MAX_NOISE),
)
def test_no_noise_that_is_claimed_makes_another_version_pass(
    effect: float, gap: float, off: float, claimed: float, theirs: float
) -> None:
    """The slot holds the other one, and honest noises would tell the two apart."""
    expected = _fingerprint(dict.fromkeys(range(COMMON), effect), claimed)
    other = _fingerprint(dict.fromkeys(range(COMMON), effect + gap), theirs)
    shown = [_table(effect + gap + off)[:TOP_OBSERVED]] * COMMON
    assert not judge(fingerprint=expected, observed=shown, siblings={VICTIM: other}, dtype="bfloat16").passed
