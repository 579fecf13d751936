import math

import numpy as np
import pytest

from registry.digests import Digest
from registry.fingerprint import (
    EXACT_F32,
    MIN_RATIO,
    TOP_OBSERVED,
    TOP_REFERENCE,
    Fingerprint,
    Probe,
    TopLogprobs,
)
from registry.judgement import UNMEASURED, Finding, judge

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
def test_a_sibling_that_would_be_exact_too_cannot_be_told_apart(off: float) -> None:
    for observed_off in (0.0, 6e-7):
        found = find(observed_off, "float32", {SIBLING: near(off)})
        assert not found.passed
        assert "cannot be told apart" in found.reason
    assert find(6e-7, "float32", {SIBLING: near(EXACT_F32 * 2)}).passed


def test_an_identical_sibling_fails_in_every_type() -> None:
    for dtype in ("float32", "bfloat16"):
        assert not find(0.0, dtype, {SIBLING: OWN}).passed


def test_siblings_are_compared_on_common_random_probes_only() -> None:
    """The sibling's tenant probe would be equal; its random ones are far."""
    same = fingerprint(2).probes[:2] + OWN.probes[2:]
    assert find(6e-7, siblings={SIBLING: OWN.model_copy(update={"probes": same})}).passed
    reordered = OWN.model_copy(update={"probes": (OWN.probes[1], fingerprint(2, tokens=9).probes[0])})
    assert not find(6e-7, siblings={SIBLING: reordered}).passed


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
    sibling = near(0.05)  # 0.08 away: 4 times the mean own distance of 0.02, 2.7 times the one it shares
    found = judge(fingerprint=OWN, observed=noisy, siblings={SIBLING: sibling}, dtype="bfloat16")
    assert found.own_distance == pytest.approx(0.02)
    assert not found.passed


def test_a_sibling_without_a_common_probe_is_mentioned() -> None:
    strange = {SIBLING: fingerprint(2, tokens=100), OTHER: fingerprint(3, kinds=("tenant",))}
    found = find(6e-7, siblings=strange)
    assert found.passed
    assert "2 sibling(s) share no random probe" in found.reason


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_number_that_is_not_finite_fails(bad: float, dtype: str) -> None:
    def spoil(top: TopLogprobs) -> TopLogprobs:
        return (*top[:-1], (top[-1][0], bad))

    first = OWN.probes[0]
    observed = seen(OWN, 0.0)
    sibling = fingerprint(2)
    spoilt_sibling = sibling.model_copy(
        update={"probes": (sibling.probes[0].model_copy(update={"own": spoil(sibling.probes[0].own)}),)}
    )
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
        judge(fingerprint=OWN, observed=observed, siblings={SIBLING: spoilt_sibling}, dtype=dtype),
    ):
        assert (found.strength, found.passed) == ("failed", False)
        assert "finite" in found.reason
        assert found.own_distance == UNMEASURED
        found.nearest.canonical()  # what failed must still be signed


@pytest.mark.parametrize("observed", [[], seen(OWN, 0.0)[:2], [*seen(OWN, 0.0), ()], [(), (), ()]])
def test_an_incomplete_observation_fails(observed: list[TopLogprobs]) -> None:
    found = judge(fingerprint=OWN, observed=observed, siblings={SIBLING: fingerprint(2)}, dtype="float32")
    assert (found.strength, found.passed) == ("failed", False)


@pytest.mark.parametrize("dtype", ["", "fp8", "FLOAT32", "auto"])
def test_a_type_without_a_rule_fails(dtype: str) -> None:
    assert not find(0.0, dtype).passed
