"""What an agent finds by the rules, the registry takes; and what the registry takes is within them."""

from typing import Literal

from hypothesis import example
from hypothesis import given as drawn
from hypothesis import strategies as st

from registry.digests import Digest
from registry.fingerprint import (
    EXACT_F32,
    MAX_NOISE,
    MIN_RATIO,
    STRAY_NOISES,
    TOP_OBSERVED,
    Fingerprint,
    Nearest,
    Probe,
    Strength,
    TopLogprobs,
)
from registry.judgement import judge, plausible

BASE = Digest.of(b"base")
TOKENS = range(TOP_OBSERVED)
KINDS: tuple[Literal["random", "tenant"], ...] = ("random", "random", "tenant")
NOISES = st.one_of(st.none(), st.floats(1e-4, 2 * MAX_NOISE))
DISTANCES = st.one_of(
    st.floats(0, 2), st.floats(0, 3 * EXACT_F32), st.sampled_from([0.0, EXACT_F32, 2e-6, 0.02, 0.06])
)


def _table(shift: float) -> TopLogprobs:
    return tuple((token, -3.0 - shift) for token in TOKENS)


def _fingerprint(shift: float, noise: float | None) -> Fingerprint:
    probes = tuple(
        Probe(kind=kind, token_ids=(number,), own=_table(shift), base=_table(0.0))
        for number, kind in enumerate(KINDS)
    )
    noises = {} if noise is None else {"bfloat16": noise, "float16": noise}
    return Fingerprint.build(
        Fingerprint(base=BASE, probes=probes, distance_to_base=abs(shift)).model_dump(mode="json")
        | {"noise": noises}
    )


@drawn(
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    shift=DISTANCES,
    offs=st.tuples(DISTANCES, DISTANCES, DISTANCES),
    rival=st.one_of(st.none(), DISTANCES),
    shared=st.sampled_from([(0,), (0, 1), (0, 1, 2), (1, 2)]),
    noise=NOISES,
)
@example("bfloat16", 0.5, (0.1, 0.1, 0.02), 0.66, (0, 1), None)
def test_an_honest_finding_is_taken(
    dtype: str,
    shift: float,
    offs: tuple[float, float, float],
    rival: float | None,
    shared: tuple[int, ...],
    noise: float | None,
) -> None:
    """``shared``: which of the probes the sibling has; the last one is a tenant's."""
    sibling = None if rival is None else _fingerprint(rival, noise)
    if sibling is not None:
        probes = tuple(sibling.probes[place] for place in shared)
        sibling = sibling.model_copy(update={"probes": probes})
    found = judge(
        fingerprint=_fingerprint(shift, noise),
        observed=[_table(shift + off)[:TOP_OBSERVED] for off in offs],
        siblings={} if sibling is None else {Digest.of(b"sibling"): sibling},
        dtype=dtype,
    )
    taken = plausible(
        dtype=dtype,
        own_distance=found.own_distance,
        nearest=found.nearest,
        strength=found.strength,
        noise=found.noise,
    )
    assert taken is found.passed


@drawn(
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    own=DISTANCES,
    times=st.floats(0, 10),
    what=st.sampled_from(["base", str(Digest.of(b"sibling"))]),
    noise=NOISES,
)
def test_what_is_taken_could_have_been_found(
    dtype: str, own: float, times: float, what: str, noise: float | None
) -> None:
    def taken(strength: Strength) -> bool:
        nearest = Nearest(what=what, distance=own * times)
        return plausible(dtype=dtype, own_distance=own, nearest=nearest, strength=strength, noise=noise)

    assert not taken("failed")
    if dtype == "float32":
        assert not taken("ratio")
        assert not (taken("exact") and taken("weak")), "the figures say which"
        assert own < EXACT_F32 or not (taken("exact") or taken("weak"))
        return
    assert not taken("exact")
    assert not (taken("ratio") and times < 0.99 * MIN_RATIO)
    assert not (taken("weak") and noise is None)
    if noise is not None and (noise > MAX_NOISE or own > STRAY_NOISES * noise):
        assert not taken("ratio")
        assert not taken("weak")
