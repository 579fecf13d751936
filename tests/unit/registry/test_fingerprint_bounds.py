"""How much a tenant may have an engine compute: at the bounds, and one beyond each."""

import pytest

from registry.catalog.errors import FingerprintInvalid
from registry.digests import Digest
from registry.fingerprint import (
    MAX_PROBE_TOKENS,
    MAX_PROBES,
    MAX_TOKENS,
    TOP_OBSERVED,
    TOP_REFERENCE,
    Fingerprint,
    beyond_bounds,
)
from registry.manifests import Provenance
from tests.support.adapters import (
    endless_fingerprints,
    probing,
    tiny_base,
    tiny_fingerprint,
    write_adapter,
)
from tests.support.registries import NAME, World

MADE = tiny_fingerprint(Digest.of(b"base"))


def with_tables(own: int, base: int, logprob: float = -5.0) -> Fingerprint:
    table = tuple((token, logprob) for token in range(100))
    probe = MADE.probes[0].model_copy(update={"own": table[:own], "base": table[:base]})
    return MADE.model_copy(update={"probes": (MADE.probes[1], probe)})


@pytest.mark.parametrize(
    "made",
    [
        MADE,
        probing(MADE, ((number,) * 24 for number in range(MAX_PROBES))),
        probing(MADE, ((number,) * (MAX_TOKENS // MAX_PROBES) for number in range(MAX_PROBES))),
        probing(MADE, ((number,) * MAX_PROBE_TOKENS for number in range(MAX_TOKENS // MAX_PROBE_TOKENS))),
        probing(MADE, [(0,), (2**31 - 1,)]),
        with_tables(TOP_OBSERVED, TOP_OBSERVED),
        with_tables(TOP_REFERENCE, TOP_REFERENCE),
        with_tables(TOP_REFERENCE, TOP_REFERENCE, 1e-5),
        with_tables(TOP_REFERENCE, TOP_REFERENCE, -1e5),
    ],
)
def test_what_trainers_make_is_within_the_bounds(made: Fingerprint) -> None:
    assert beyond_bounds(made) is None


def test_what_the_trainer_makes_of_the_longest_questions_fits() -> None:
    """Eight random probes, eight as long as may be: what it makes first, and asks no budget for."""
    lengths = [24] * 8 + [MAX_PROBE_TOKENS] * 8
    made = probing(MADE, ((number,) * length for number, length in enumerate(lengths)))
    assert beyond_bounds(made) is None


@pytest.mark.parametrize(
    ("made", "said"),
    [
        *zip(endless_fingerprints(MADE.base), ("65 probes", "8193 tokens", "131073 tokens"), strict=True),
        (probing(MADE, [(1, 2), (3,), (1, 2)]), "probe 2: the same as probe 0"),
        (MADE.model_copy(update={"probes": MADE.probes * 500}), "1000 probes"),
        (MADE.model_copy(update={"probes": MADE.probes * 2}), "the same as"),
        (
            MADE.model_copy(
                update={"probes": (MADE.probes[0], MADE.probes[0].model_copy(update={"kind": "tenant"}))}
            ),
            "the same as",
        ),
        (probing(MADE, [(1, -1)]), "no token id"),
        (probing(MADE, [(1, 2**31)]), "no token id"),
        (with_tables(TOP_OBSERVED - 1, TOP_REFERENCE), "probe 1: own must hold"),
        (with_tables(TOP_REFERENCE, TOP_OBSERVED - 1), "probe 1: base must hold"),
        (with_tables(TOP_REFERENCE + 1, TOP_REFERENCE), "probe 1: own must hold"),
        (with_tables(TOP_REFERENCE, TOP_REFERENCE + 1), "probe 1: base must hold"),
        *((with_tables(20, 20, bad), "no log-probability") for bad in (0.01, -1e7, -1e308)),
    ],
)
def test_whoever_pushes_more_is_refused_and_nothing_is_stored(
    world: World, made: Fingerprint, said: str
) -> None:
    before = world.catalog.snapshot().size, set(world.blobs.digests())
    with pytest.raises(FingerprintInvalid, match=said) as refused:
        world.catalog.push(
            NAME,
            write_adapter(world.folder / "adapter", tiny_base()[0]),
            base=world.base,
            fingerprint=made.model_copy(update={"base": world.base}),
            provenance=Provenance(method="upload"),
            actor="test",
        )
    assert refused.value.code == "fingerprint_invalid"
    assert f"at most {MAX_PROBES} different probes" in refused.value.advice
    assert (world.catalog.snapshot().size, set(world.blobs.digests())) == before
