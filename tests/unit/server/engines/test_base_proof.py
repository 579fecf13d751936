"""The bare base is held against what it answered itself, to prompts that no tenant chose."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.fingerprint import TOP_OBSERVED, Fingerprint, TopLogprobs
from server.engines.base_proof import BaseProof
from server.engines.errors import BaseUnproven, EngineAnswerUnusable
from server.testing.fake_model import fake_fingerprint, fake_logprobs
from tests.unit.server.engines.bench import BASE, QUICK, Bench

Ids = tuple[int, ...]
VERSION = Digest.of(b"version")
GENUINE = fake_fingerprint(BASE.identity(), VERSION)


class Base:
    def __init__(self) -> None:
        self.off = 0.0
        self.status: int | None = 200
        self.asked: list[tuple[Ids, ...]] = []
        """The prompts of each request."""

    async def tokenize(self, *_: object, **__: object) -> tuple[int, ...]:
        raise NotImplementedError

    async def probe(
        self, *, model: str, prompts: Sequence[Sequence[int]], cache_salt: str
    ) -> tuple[TopLogprobs, ...]:
        self.asked.append(tuple(map(tuple, prompts)))
        if self.status != 200:
            raise EngineAnswerUnusable(f"the engine answered {self.status}", status=self.status)
        return tuple(_moved(fake_logprobs(None, prompt)[:TOP_OBSERVED], self.off) for prompt in prompts)


def proof_of(engine: Base, *, base: Digest | None = None, dtype: str = "float32") -> BaseProof:
    return BaseProof(
        engine=engine,
        model="tenon-null",
        base=base or BASE.identity(),
        dtype=dtype,
        new_salt=lambda: "salt",
    )


async def asked_at_a_heartbeat(engine: Base, proof: BaseProof) -> list[tuple[Ids, ...]]:
    engine.asked.clear()
    await proof.again()
    return engine.asked


def _moved(table: TopLogprobs, by: float) -> TopLogprobs:
    return tuple((token, figure + by) for token, figure in table)


def shifted(fingerprint: Fingerprint, by: float) -> Fingerprint:
    """With every figure of the base a little off."""
    rows = tuple(probe.model_copy(update={"base": _moved(probe.base, by)}) for probe in fingerprint.probes)
    return fingerprint.model_copy(update={"probes": rows})


def blind(fingerprint: Fingerprint) -> Fingerprint:
    """So far from its own version that much passes for the base in rounded types."""
    rows = tuple(
        probe.model_copy(update={"base": _moved(probe.base, -1), "own": _moved(probe.own, -(10**6))})
        for probe in fingerprint.probes
    )
    return fingerprint.model_copy(update={"probes": rows})


def asking(fingerprint: Fingerprint, prompts: Sequence[Ids]) -> Fingerprint:
    """With these prompts, and what the base answers to them."""
    (row, *_) = fingerprint.probes
    rows = tuple(
        row.model_copy(update={"token_ids": ids, "base": fake_logprobs(None, ids)}) for ids in prompts
    )
    return fingerprint.model_copy(update={"probes": rows})


@pytest.mark.parametrize(
    ("dtype", "rounding", "beyond"),
    [("float32", 2e-6, 2e-5), ("bfloat16", 0.05, 0.3), ("float16", 0.05, 0.3)],
)
@pytest.mark.parametrize("first", [True, False])
async def test_a_base_that_changes_is_found_and_a_tenants_reference_of_it_ends_nobodys_engine(
    dtype: str, rounding: float, beyond: float, first: bool
) -> None:
    """A little off, or such that much else passes too: the base is held against what it answered itself."""
    engine = Base()
    proof = proof_of(engine, dtype=dtype)
    theirs = [shifted(GENUINE, -9e-6), blind(GENUINE)]
    order = [*theirs, GENUINE] if first else [GENUINE, *theirs]
    for number, fingerprint in enumerate(order):
        held = await proof.fault(Digest.of(b"%d" % number), fingerprint) is None
        assert held or fingerprint is not GENUINE
    for off in (rounding, -rounding):  # as in another batch
        engine.off = off
        await proof.again()
    for off in (beyond, -beyond, math.nan):
        engine.off = off
        with pytest.raises(BaseUnproven, match="no longer answers as it did"):
            await proof.again()


async def test_no_fingerprint_changes_what_the_base_is_asked_at_heartbeats_or_held_against() -> None:
    """However many there are, and be they of the very prompts of heartbeats."""
    engine = Base()
    proof = proof_of(engine)
    assert await proof.fault(VERSION, GENUINE) is None
    first, *_ = engine.asked
    assert not {probe.token_ids for probe in GENUINE.probes} & set(first)
    mine = asking(GENUINE, [(7,) * (4 + number) for number in range(8)])
    for number in range(5):
        assert await proof.fault(Digest.of(b"%d" % number), mine) is None
    assert await proof.fault(Digest.of(b"wrong"), shifted(GENUINE, 1)) is not None
    engine.off = 2e-5  # a base that has just changed is not taken for what it was
    assert await proof.fault(Digest.of(b"late"), shifted(asking(GENUINE, first), 2e-5)) is None
    with pytest.raises(BaseUnproven, match="no longer answers as it did"):
        await proof.again()
    engine.off = 0.0
    assert await asked_at_a_heartbeat(engine, proof) == [first]


async def test_every_boot_of_a_base_asks_the_same_and_another_base_is_asked_something_else() -> None:
    asked = []
    for base in (BASE.identity(), BASE.identity(), Digest.of(b"another")):
        engine = Base()
        proof = proof_of(engine, base=base)
        assert await proof.fault(VERSION, GENUINE) is None
        asked += await asked_at_a_heartbeat(engine, proof)
    one, again, other = asked
    assert one == again
    assert not set(one) & set(other)
    assert [len(prompt) for prompt in one] == [16] * 8
    assert {3 <= token <= 255 for prompt in one for token in prompt} == {True}, "in every vocabulary"


async def test_the_base_shows_itself_before_the_first_version_is_judged_and_only_once() -> None:
    engine = Base()
    proof = proof_of(engine)
    assert await proof.fault(Digest.of(b"wrong"), shifted(GENUINE, 1)) is not None
    (first, theirs) = engine.asked
    assert theirs == tuple(probe.token_ids for probe in GENUINE.probes)
    assert await proof.fault(VERSION, GENUINE) is None
    assert engine.asked == [first, theirs], "of versions that share their prompts, once for all"
    assert await asked_at_a_heartbeat(engine, proof) == [first]
    engine.off = 1.0
    assert await proof.fault(Digest.of(b"next"), GENUINE) is not None, "judged by what the base shows by then"


async def test_a_base_that_was_asked_nothing_is_not_asked_again() -> None:
    engine = Base()
    assert await asked_at_a_heartbeat(engine, proof_of(engine)) == []


async def test_a_base_that_vllm_fails_to_show_is_asked_three_times() -> None:
    engine = Base()
    proof = proof_of(engine)
    assert await proof.fault(VERSION, GENUINE) is None
    for status, bears in ((500, 2), (500, 2), (400, 0), (None, 0)):
        engine.status = status
        for _ in range(bears):
            await proof.again()
        with pytest.raises(BaseUnproven, match=str(status)):
            await proof.again()
        engine.status = 200
        await proof.again()


async def test_a_first_look_that_vllm_fails_is_made_again_and_one_that_it_refuses_is_no_versions_fault() -> (
    None
):
    engine = Base()
    proof = proof_of(engine)
    engine.status = 500
    with pytest.raises(EngineAnswerUnusable, match="500"):
        await proof.fault(VERSION, GENUINE)
    for status in (400, None):
        engine.status = status
        with pytest.raises(BaseUnproven, match=str(status)):
            await proof.fault(VERSION, GENUINE)
    engine.status = 200
    assert await proof.fault(VERSION, GENUINE) is None
    await proof.again()
    engine.status = 400
    assert await proof.fault(VERSION, GENUINE) is None, "it was judged in this boot"
    odd = asking(GENUINE, [(10**9,)])
    assert "400" in str(await proof.fault(Digest.of(b"odd"), odd)), "this one is the version's"
    engine.status = 500
    with pytest.raises(EngineAnswerUnusable, match="500"):
        await proof.fault(Digest.of(b"odd"), odd)


async def test_a_long_reference_of_the_base_is_asked_in_part() -> None:
    engine = Base()
    long = asking(GENUINE, [(number,) * 1000 for number in range(40)])
    assert await proof_of(engine).fault(VERSION, long) is None
    assert [sum(map(len, prompts)) for prompts in engine.asked] == [8 * 16, 2000]


async def test_an_engine_that_does_not_show_its_base_starts_again_and_no_version_is_blamed(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, cadence=QUICK, faults='{"model_lie": "somebody"}')
    bench.adapter("bank_a", seed=1)
    async with bench.running():
        await bench.until(lambda _: any("engine_base_unproven" in event.text for event in bench.events))
        await bench.until(lambda _: bench.kinds().count("up") == 2)
    assert not {event.version for event in bench.events if event.kind in ("failed", "waiting")} - {None}
