import math

import numpy as np
import pytest

from registry.digests import Digest
from registry.fingerprint import (
    COMMON_PROBES,
    EXACT_F32,
    MAX_NOISE,
    MIN_RATIO,
    TOP_OBSERVED,
    TOP_REFERENCE,
    ZERO_EFFECT,
    Fingerprint,
    Nearest,
    Probe,
    Strength,
    TopLogprobs,
    apart,
    comparable,
)
from registry.judgement import UNMEASURED, Finding, judge, judge_base, plausible

SIBLING, OTHER = Digest.of(b"sibling"), Digest.of(b"other")


def table(seed: int) -> TopLogprobs:
    logits = np.random.default_rng(seed).normal(0, 2, 200)
    logprobs = logits - np.log(np.exp(logits).sum())
    order = np.argsort(-logprobs)[:TOP_REFERENCE]
    return tuple((int(token), float(logprobs[token])) for token in order)


def shifted(tables: list[TopLogprobs], by: float) -> list[TopLogprobs]:
    """What an engine would show: the top TOP_OBSERVED, each off by ``by``."""
    return [tuple((token, value - by) for token, value in top[:TOP_OBSERVED]) for top in tables]


def fingerprint(
    seed: int, *, kinds: tuple[str, ...] = ("random", "random", "tenant"), tokens: int = 0
) -> Fingerprint:
    """``tokens`` moves the probes' prompts; the base answers the same for every ``seed``."""
    return Fingerprint(
        base=Digest.of(b"base"),
        probes=tuple(
            Probe(
                kind="random" if kind == "random" else "tenant",
                token_ids=(index + tokens, 7),
                own=table(1000 * seed + index),
                base=table(index),
            )
            for index, kind in enumerate(kinds)
        ),
        distance_to_base=1.0,
    )


OWN = fingerprint(1)


def seen(expected: Fingerprint, off: float) -> list[TopLogprobs]:
    return shifted([probe.own for probe in expected.probes], off)


def find(off: float, dtype: str = "float32", siblings: dict[Digest, Fingerprint] | None = None) -> Finding:
    return judge(fingerprint=OWN, observed=seen(OWN, off), siblings=siblings or {}, dtype=dtype)


def near(off: float) -> Fingerprint:
    """A sibling whose reference differs from OWN's by ``off`` everywhere."""
    return OWN.model_copy(
        update={
            "probes": tuple(
                probe.model_copy(update={"own": tuple((token, value + off) for token, value in probe.own)})
                for probe in OWN.probes
            )
        }
    )


def test_float32_is_exact() -> None:
    found = find(6e-7, siblings={SIBLING: fingerprint(2)})
    assert (found.strength, found.passed) == ("exact", True)
    assert found.own_distance == pytest.approx(6e-7, rel=1e-3)
    assert found.nearest.distance > 0.1


@pytest.mark.parametrize("off", [EXACT_F32 * 1.01, 1e-3])
def test_float32_has_no_second_chance_by_ratio(off: float) -> None:
    found = find(off)
    assert (found.strength, found.passed) == ("failed", False)
    assert "float32" in found.reason


def test_the_base_in_the_slot_is_recognised() -> None:
    observed = shifted([probe.base for probe in OWN.probes], 0.0)
    for dtype in ("float32", "bfloat16"):
        found = judge(fingerprint=OWN, observed=observed, siblings={SIBLING: fingerprint(2)}, dtype=dtype)
        assert not found.passed
        assert (found.nearest.what, found.nearest.distance) == ("base", 0.0)


def test_a_sibling_in_the_slot_is_named() -> None:
    siblings = {SIBLING: fingerprint(2), OTHER: fingerprint(3)}
    for dtype in ("float32", "bfloat16", "float16"):
        found = judge(fingerprint=OWN, observed=seen(siblings[SIBLING], 1e-7), siblings=siblings, dtype=dtype)
        assert not found.passed
        assert found.nearest.what == SIBLING


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_types_are_judged_by_ratio(dtype: str) -> None:
    found = find(1.5e-2, dtype, {SIBLING: fingerprint(2)})
    assert (found.strength, found.passed) == ("ratio", True)
    assert find(6e-7, dtype).strength == "ratio"


def test_the_ratio_must_be_reached() -> None:
    assert find(0.01, "bfloat16", {SIBLING: near(0.01 * (MIN_RATIO - 1) + 1e-6)}).passed
    close = find(0.01, "bfloat16", {SIBLING: near(0.01 * (MIN_RATIO - 1) - 1e-4)})
    assert (close.strength, close.passed, close.nearest.what) == ("failed", False, SIBLING)
    assert "times farther" in close.reason


@pytest.mark.parametrize("off", [0.0, 1e-7, EXACT_F32 / 2])
def test_a_sibling_that_would_be_exact_too_makes_a_weak_finding(off: float) -> None:
    for observed_off in (0.0, 6e-7):
        found = find(observed_off, "float32", {SIBLING: near(off)})
        assert (found.strength, found.passed) == ("weak", True)
        assert SIBLING in found.reason
    assert find(6e-7, "float32", {SIBLING: near(EXACT_F32 * 2)}).strength == "exact"


def test_an_identical_sibling_is_never_more_than_weak() -> None:
    assert find(0.0, "float32", {SIBLING: OWN}).strength == "weak"
    assert not find(0.0, "bfloat16", {SIBLING: OWN}).passed, "no noise is known"


def test_siblings_are_compared_on_common_probes() -> None:
    """An equal tenant probe does not make up for random ones that are far."""
    same = fingerprint(2).probes[:2] + OWN.probes[2:]
    assert find(6e-7, siblings={SIBLING: OWN.model_copy(update={"probes": same})}).passed
    more = fingerprint(2, tokens=9).probes
    reordered = OWN.model_copy(update={"probes": (more[0], OWN.probes[1], OWN.probes[0], more[2])})
    assert find(6e-7, siblings={SIBLING: reordered}).strength == "weak"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nobody_is_compared_on_what_a_sibling_chose_to_share(dtype: str) -> None:
    """One probe on which both do the same, of the two that all versions have."""
    for probes in (OWN.probes[:1], OWN.probes[1:], OWN.probes[2:]):
        found = find(6e-7, dtype, {SIBLING: OWN.model_copy(update={"probes": probes})})
        assert found.passed
        assert found.strength != "weak"
        assert "1 sibling(s) have no comparable reference" in found.reason


def test_the_first_eight_random_probes_are_those_that_all_versions_have() -> None:
    many = fingerprint(1, kinds=("random",) * (COMMON_PROBES + 2) + ("tenant",))
    for shared, places in ((COMMON_PROBES - 1, 0), (COMMON_PROBES, COMMON_PROBES), (len(many.probes),) * 2):
        other = many.model_copy(update={"probes": many.probes[:shared]})
        assert [place for place, _ in comparable(many, other)] == list(range(places))
        assert (apart(many, other) is None) == (places == 0)
        assert apart(other, many) == 0.0, "it has all that the shorter one has"


def test_a_tenant_probe_is_not_compared_with_a_random_one() -> None:
    tenant_first = OWN.model_copy(
        update={"probes": (OWN.probes[0].model_copy(update={"kind": "tenant"}), *OWN.probes[1:])}
    )
    only_the_first = OWN.model_copy(update={"probes": OWN.probes[:1]})
    found = judge(
        fingerprint=tenant_first,
        observed=seen(OWN, 6e-7),
        siblings={SIBLING: only_the_first},
        dtype="float32",
    )
    assert found.passed
    assert "1 sibling(s)" in found.reason


def test_own_and_sibling_are_weighed_on_the_same_probes() -> None:
    """A good tenant probe must not make up for random probes on which the sibling is nearly as close."""
    noisy = [*shifted([probe.own for probe in OWN.probes[:2]], 0.03), OWN.probes[2].own[:TOP_OBSERVED]]
    theirs = OWN.probes[2].model_copy(update={"token_ids": (99, 7)})
    sibling = near(0.05)  # 0.08 away: 4 times the mean own distance of 0.02, 2.7 times the one it shares
    sibling = sibling.model_copy(update={"probes": (*sibling.probes[:2], theirs)})
    found = judge(fingerprint=OWN, observed=noisy, siblings={SIBLING: sibling}, dtype="bfloat16")
    assert found.own_distance == pytest.approx(0.02)
    assert not found.passed


def test_a_sibling_without_a_common_probe_is_mentioned() -> None:
    strange = {SIBLING: fingerprint(2, tokens=100), OTHER: fingerprint(3, kinds=("tenant",))}
    found = find(6e-7, siblings=strange)
    assert found.passed
    assert "2 sibling(s) have no comparable reference" in found.reason


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_number_that_is_not_finite_fails(bad: float, dtype: str) -> None:
    def spoil(top: TopLogprobs) -> TopLogprobs:
        return (*top[:-1], (top[-1][0], bad))

    first = OWN.probes[0]
    observed = seen(OWN, 0.0)
    own = OWN.model_copy(
        update={"probes": (first.model_copy(update={"own": spoil(first.own)}), *OWN.probes[1:])}
    )
    base = OWN.model_copy(
        update={"probes": (first.model_copy(update={"base": spoil(first.base)}), *OWN.probes[1:])}
    )
    for found in (
        judge(fingerprint=OWN, observed=[*observed[:-1], spoil(observed[-1])], siblings={}, dtype=dtype),
        judge(fingerprint=own, observed=observed, siblings={}, dtype=dtype),
        judge(fingerprint=base, observed=observed, siblings={}, dtype=dtype),
    ):
        assert (found.strength, found.passed) == ("failed", False)
        assert "finite" in found.reason
        assert found.own_distance == UNMEASURED
        found.nearest.canonical()  # what failed must still be signed


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "own",
    [
        *((*OWN.probes[0].own[:-1], (7, bad)) for bad in (math.nan, math.inf, -math.inf)),
        tuple((token, -1e308) for token, _ in OWN.probes[0].own),
        (),
    ],
    ids=["nan", "inf", "-inf", "beyond what can be summed", "nothing"],
)
def test_what_is_wrong_with_a_siblings_reference_costs_nobody_else(own: TopLogprobs, dtype: str) -> None:
    """Registries refuse to store such ones. Older ones stored sums that are no numbers any more."""
    spoilt = OWN.model_copy(
        update={"probes": tuple(probe.model_copy(update={"own": own}) for probe in OWN.probes)}
    )
    alone, beside = find(6e-7, dtype), find(6e-7, dtype, {SIBLING: spoilt})
    assert beside.passed
    assert (beside.strength, beside.nearest) == (alone.strength, alone.nearest)
    assert "1 sibling(s) have no comparable reference" in beside.reason


@pytest.mark.parametrize("observed", [[], seen(OWN, 0.0)[:2], [*seen(OWN, 0.0), ()], [(), (), ()]])
def test_an_incomplete_observation_fails(observed: list[TopLogprobs]) -> None:
    found = judge(fingerprint=OWN, observed=observed, siblings={SIBLING: fingerprint(2)}, dtype="float32")
    assert (found.strength, found.passed) == ("failed", False)


@pytest.mark.parametrize("dtype", ["", "fp8", "FLOAT32", "auto"])
def test_a_type_without_a_rule_fails(dtype: str) -> None:
    assert not find(0.0, dtype).passed


# Weakly attestable


NOISE = 0.02


def faint(gap: float, *, noise: float | None = NOISE) -> Fingerprint:
    """A version whose every log-probability is ``gap`` from its base's."""
    probes = tuple(
        probe.model_copy(update={"base": tuple((token, value + gap) for token, value in probe.own)})
        for probe in OWN.probes
    )
    given = {} if noise is None else {"bfloat16": noise}
    return OWN.model_copy(update={"probes": probes, "noise": given})


def look(expected: Fingerprint, off: float, dtype: str = "bfloat16", **siblings: Fingerprint) -> Finding:
    named = {Digest.of(name.encode()): each for name, each in siblings.items()}
    return judge(fingerprint=expected, observed=seen(expected, off), siblings=named, dtype=dtype)


def test_a_version_close_to_its_base_is_attested_weakly_within_its_noise() -> None:
    found = look(faint(2 * NOISE), NOISE)  # 0.06 from the base: 3 times is reached
    assert found.strength == "ratio"
    found = look(faint(1.5 * NOISE), NOISE)
    assert (found.strength, found.passed, found.noise) == ("weak", True, NOISE)
    assert "indistinguishable from base" in found.reason


def test_weak_needs_a_known_noise_of_that_type() -> None:
    assert not look(faint(1.5 * NOISE, noise=None), NOISE).passed
    assert not look(faint(1.5 * NOISE), NOISE, "float16").passed
    for claimed in (0.0, -NOISE, math.nan, math.inf, MAX_NOISE * 1.01):
        assert not look(faint(1.5 * NOISE, noise=claimed), NOISE).passed


def test_weak_is_not_for_what_rounding_does_not_explain() -> None:
    gap = 4.9 * NOISE
    assert look(faint(gap), 2.5 * NOISE).strength == "weak"
    assert not look(faint(gap), 3.1 * NOISE).passed


def test_weak_is_not_for_what_can_be_told_apart() -> None:
    """References five times the noise apart: then the ratio is asked, whatever the own distance."""
    assert look(faint(5.1 * NOISE), 2.9 * NOISE).passed is False
    assert look(faint(5.1 * NOISE), NOISE).strength == "ratio"


def test_the_base_in_the_slot_of_a_faint_version_fails_while_it_can_be_told() -> None:
    for gap in (1 * NOISE, 3.2 * NOISE, 4.9 * NOISE, 8 * NOISE):
        version = faint(gap)
        shown = shifted([probe.base for probe in version.probes], NOISE / 10)
        found = judge(fingerprint=version, observed=shown, siblings={}, dtype="bfloat16")
        assert (found.strength, found.passed, found.nearest.what) == ("failed", False, "base"), gap
    shown = shifted([probe.base for probe in faint(NOISE / 2).probes], NOISE)
    found = judge(fingerprint=faint(NOISE / 2), observed=shown, siblings={}, dtype="bfloat16")
    assert found.strength == "weak", "no engine could tell the two"


def test_an_adapter_without_effect_is_never_found() -> None:
    for gap in (0.0, ZERO_EFFECT * 0.9):
        for dtype in ("float32", "bfloat16"):
            found = look(faint(gap), gap / 3, dtype)
            assert not found.passed
            assert "no effect" in found.reason


def test_what_looks_like_another_version_fails_even_within_the_noise() -> None:
    """2.9 times the noise from its own reference, and on top of a sibling's."""
    expected = OWN.model_copy(update={"noise": {"bfloat16": NOISE}})
    sibling = near(-2.9 * NOISE)  # as far off as what is observed, in the same direction
    found = look(expected, 2.9 * NOISE, sibling=sibling)
    assert not found.passed
    assert look(expected, 1.45 * NOISE, sibling=sibling).strength == "weak"


def test_nobody_hides_another_behind_a_large_noise() -> None:
    """As large as is believed, and so far that honest references at that distance could be told apart."""
    boastful = OWN.model_copy(update={"noise": {"bfloat16": MAX_NOISE}})
    for gap in (4 * NOISE, 1.4 * MAX_NOISE, 2.9 * MAX_NOISE, 4.9 * MAX_NOISE):
        sibling = near(-gap)
        for off in (0.0, NOISE):
            shown = seen(sibling, off)
            found = judge(fingerprint=boastful, observed=shown, siblings={SIBLING: sibling}, dtype="bfloat16")
            assert (found.strength, found.nearest.what) == ("failed", SIBLING), (gap, off)


def test_far_from_everything_is_not_the_version_either() -> None:
    """An adapter that nobody knows: ten times the noise away, and everything else farther still."""
    expected = OWN.model_copy(update={"noise": {"bfloat16": NOISE}})
    assert find(0.3, "bfloat16").strength == "ratio"
    assert look(expected, 0.3).passed is False
    assert look(expected, 0.19).strength == "ratio"


# The bare base


def test_the_base_is_recognised_by_the_fingerprint_of_any_version() -> None:
    shown = shifted([probe.base for probe in OWN.probes], 6e-7)
    found = judge_base(fingerprint=OWN, observed=shown, dtype="float32")
    assert (found.strength, found.passed, found.nearest.what) == ("exact", True, "adapter")
    assert judge_base(fingerprint=OWN, observed=shown, dtype="bfloat16").strength == "ratio"


def test_an_adapter_in_the_place_of_the_base_fails() -> None:
    for dtype in ("float32", "bfloat16"):
        assert not judge_base(fingerprint=OWN, observed=seen(OWN, 6e-7), dtype=dtype).passed
        assert not judge_base(fingerprint=OWN, observed=seen(fingerprint(2), 0.0), dtype=dtype).passed
    assert not judge_base(fingerprint=OWN, observed=[], dtype="float32").passed


# What a registry believes


@pytest.mark.parametrize(
    ("dtype", "own", "nearest", "what", "strength", "noise", "believed"),
    [
        ("float32", 1e-6, 0.5, "base", "exact", None, True),
        ("float32", 2e-5, 0.5, "base", "exact", None, False),
        ("bfloat16", 1e-6, 0.5, "base", "exact", None, False),
        ("float32", 1e-6, 1e-6, "base", "exact", None, False),
        ("bfloat16", 0.02, 0.06, "base", "ratio", None, True),
        ("bfloat16", 0.02, 0.059, "base", "ratio", None, False),
        ("bfloat16", 0.0, 0.0, "base", "ratio", None, False),
        # float32 is equal to rounding, or it is not.
        ("float32", 1e-3, 0.5, "base", "ratio", None, False),
        ("float32", 1e-6, 0.5, "base", "ratio", None, False),
        ("float32", 1e-6, 9e-6, "base", "exact", None, False),
        ("float32", 1e-6, 0.5, SIBLING, "weak", None, False),
        ("float32", 1e-6, 0.5, "base", "failed", None, False),
        # However far the others are, rounding explains ten times the noise and no more.
        ("bfloat16", 0.19, 0.9, "base", "ratio", 0.02, True),
        ("bfloat16", 0.21, 0.9, "base", "ratio", 0.02, False),
        ("float16", 0.21, 0.9, "base", "ratio", 0.02, False),
        # A noise that no fingerprint is believed.
        ("bfloat16", 0.21, 0.9, "base", "ratio", 0.3, False),
        ("bfloat16", 0.5, 0.5, "base", "weak", 0.3, False),
        ("bfloat16", 0.02, 0.9, "base", "ratio", 0.0, False),
        ("bfloat16", 0.02, 0.02, "base", "weak", 0.02, True),
        ("bfloat16", 0.02, 0.02, "base", "weak", None, False),
        ("bfloat16", 0.02, 0.02, "base", "weak", 0.006, False),
        ("bfloat16", 0.06, 0.019, "base", "weak", 0.02, False),
        ("bfloat16", 0.02, 0.02, "base", "failed", 0.02, False),
        ("bfloat16", -0.02, 0.02, "base", "weak", 0.02, False),
        ("bfloat16", 0.02, math.nan, "base", "weak", 0.02, False),
        ("float32", 1e-6, 1e-6, SIBLING, "weak", None, True),
        ("float32", 1e-6, 1e-6, "base", "weak", None, False),
        ("float32", 2e-5, 1e-6, SIBLING, "weak", None, False),
    ],
)
def test_figures_must_carry_the_claim(
    dtype: str, own: float, nearest: float, what: str, strength: Strength, noise: float | None, believed: bool
) -> None:
    found = plausible(
        dtype=dtype,
        own_distance=own,
        nearest=Nearest(what=what, distance=nearest),
        strength=strength,
        noise=noise,
    )
    assert found is believed


# Documents of before


def test_the_bytes_of_older_fingerprints_and_attestations_stay_what_they_were() -> None:
    assert b"noise" not in OWN.canonical()
    assert b"weak" not in OWN.canonical()
    assert b"alike" not in OWN.canonical()
    with_noise = faint(0.5).model_copy(update={"weak": ("float16",), "alike": {"bfloat16": (OTHER,)}})
    assert Fingerprint.parse(with_noise.canonical()) == with_noise
    assert Fingerprint.parse(OWN.canonical()).noise == {}


def test_float32_is_exact_on_all_probes_and_not_only_on_those_that_a_sibling_shares() -> None:
    """Right where the sibling can be compared, wrong on the tenant's own probe."""
    wrong = [*seen(OWN, 0.0)[:2], *shifted([OWN.probes[2].own], 0.3)]
    apart = near(0.5)
    shares_two = apart.model_copy(update={"probes": apart.probes[:2]})
    found = judge(fingerprint=OWN, observed=wrong, siblings={SIBLING: shares_two}, dtype="float32")
    assert (found.strength, found.passed) == ("failed", False)
    right = judge(fingerprint=OWN, observed=seen(OWN, 0.0), siblings={SIBLING: shares_two}, dtype="float32")
    assert right.strength == "exact"
