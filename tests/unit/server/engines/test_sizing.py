"""Boots sized by what is wanted: as small as that allows, and larger when a larger rank is."""

import asyncio
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from registry.digests import Digest
from registry.models import Isolation, Level
from registry.names import engine_name
from registry.signing.keys import Signer
from server.engines.state import AgentState
from server.testing.fake_model import signature
from tests.support import neighbours
from tests.unit.server.engines.bench import BASE, SLOW, Bench, cmdline, group_of

SIGNER = Signer("engine", b"e" * 32)


def slots_of(bench: Bench) -> tuple[int, int]:
    """(``--max-lora-rank``, ``--max-cpu-loras``) of the engine that runs now."""
    started = " ".join(map(cmdline, group_of(bench)))
    (rank,) = set(re.findall(r"--max-lora-rank (\d+)", started))
    (names,) = set(re.findall(r"--max-cpu-loras (\d+)", started))
    return int(rank), int(names)


async def neighbour(bench: Bench, *, up: bool = True, rank: int | None = None) -> None:
    await neighbours.announce(
        bench.control, SIGNER, base=BASE.identity(), rank=rank or bench.spec.rank, up=up
    )


async def test_an_engine_by_itself_is_as_large_as_the_bound(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_lora_rank=64)
    version = bench.adapter("bank_a", seed=1)
    await neighbour(bench, up=False)  # it may be gone for good
    async with bench.running():
        await bench.until(lambda state: version in state.ready)
        assert slots_of(bench) == (64, 33)
        assert bench.control.announced[-1].slot_rank is None


async def test_an_engine_for_smaller_ranks_is_no_other(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_lora_rank=64)
    version = bench.adapter("bank_a", seed=1, rank=20)
    await neighbour(bench, rank=16)
    async with bench.running():
        await bench.until(lambda state: version in state.ready)
        assert slots_of(bench)[0] == 64


async def test_so_is_every_boot_that_is_told_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_lora_rank=64, lora_sizes="bound", pool_size=2)
    version = bench.adapter("bank_a", seed=1)
    await neighbour(bench)
    async with bench.running():
        await bench.until(lambda state: version in state.ready)
        assert slots_of(bench) == (64, 33)


async def test_engines_that_start_together_are_not_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_lora_rank=64, pool_size=2)
    version = bench.adapter("bank_a", seed=1, rank=20)
    await neighbour(bench, up=False)  # it starts, too
    async with bench.running():
        await bench.until(lambda state: version in state.ready)
        assert slots_of(bench)[0] == 32


async def test_one_of_a_pool_that_was_given_to_a_tenant_is_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_lora_rank=64, pool_size=2)
    version = bench.adapter("bank_a", seed=1)
    await neighbour(bench)
    bench.control.isolate("bank_a", Isolation(level=Level.DEDICATED, engines=(bench.spec.engine,)))
    async with bench.running():
        await bench.until(lambda state: version in state.ready)
        assert slots_of(bench)[0] == 64


async def test_of_a_pool_of_which_nothing_is_wanted_yet_none_is_larger_than_vllm_by_itself(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, max_lora_rank=64, pool_size=2)
    async with bench.running():
        first = (await bench.until(lambda state: state.settled)).boot
        assert slots_of(bench) == (16, 33)
        announced = bench.control.announced[-1]
        assert (announced.slot_rank, announced.max_rank) == (16, 64)
        small = bench.adapter("bank_a", seed=1, rank=16)
        assert (await bench.until(lambda state: small in state.ready)).boot == first


async def test_before_it_serves_anybody_it_grows_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_lora_rank=64, pool_size=2)
    async with bench.running():
        first = (await bench.until(lambda state: state.settled)).boot
        large = bench.adapter("bank_a", seed=1, rank=40)
        assert (await bench.until(lambda state: large in state.ready)).boot != first
        assert slots_of(bench)[0] == 64


async def test_a_boot_has_names_for_all_that_is_wanted_and_what_comes_and_was(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_loras=1, max_cpu_loras=4, max_lora_rank=64)
    versions = {bench.adapter(f"bank_{number}", seed=number) for number in range(3)}
    await neighbour(bench)
    async with bench.running():
        await bench.until(lambda state: set(state.ready) == versions)
        assert slots_of(bench) == (16, 10), "three names each, and one for the null adapter"
        announced = bench.control.announced[-1]
        assert (announced.names, announced.max_rank) == (4, 64), "what the fleet may ask of it stays the same"


async def test_what_is_beyond_the_bound_changes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_lora_rank=32)
    small, large = bench.adapter("bank_a", seed=1), bench.adapter("bank_b", seed=2, rank=33)
    await neighbour(bench)
    async with bench.running():
        state = await bench.until(lambda state: small in state.ready and state.settled)
        assert large not in state.ready
        assert slots_of(bench)[0] == 16
        assert state.waits_for == ""
    assert "recycling" not in bench.kinds()


async def test_while_no_other_engine_is_up_nobody_is_interrupted_for_a_larger_rank(tmp_path: Path) -> None:
    impatient = replace(SLOW, patience=0.0)
    bench = Bench(tmp_path, max_lora_rank=64, cadence=impatient)
    small = bench.adapter("bank_a", seed=1)
    await neighbour(bench)
    async with bench.running():
        first = (await bench.until(lambda state: small in state.ready)).boot
        assert slots_of(bench)[0] == 16
        await neighbour(bench, up=False)
        large = bench.adapter("bank_b", seed=2, rank=20)
        state = await bench.until(lambda state: "other engines" in state.waits_for)
        assert (state.boot, set(state.ready)) == (first, {small})
        assert "above this boot's 16" in state.not_ready[large].text
        await neighbour(bench)  # which serves nothing yet
        await bench.until(lambda state: state.settled)
        assert (bench.agent.state.boot, set(bench.agent.state.ready)) == (first, {small})
        await neighbours.attest(bench.control, SIGNER, bench.control.attestations[0])
        state = await bench.until(lambda state: {small, large} == set(state.ready))
        assert slots_of(bench)[0] == 32
    assert bench.kinds().count("recycling") == 1


async def test_two_engines_grow_one_after_the_other_and_no_request_fails(tmp_path: Path) -> None:
    first, second = (
        Bench(tmp_path / name, engine=name, max_lora_rank=64) for name in ("engine-0", "engine-1")
    )
    second.share(first)
    benches = {"engine-0": first, "engine-1": second}
    small = first.adapter("bank_a", seed=1)
    asked, done = 0, asyncio.Event()

    async def ask() -> None:
        """As a router: of whoever has the slot now."""
        nonlocal asked
        weights = {signature(first.weights("bank_a"))}
        while not done.is_set():
            holders = [slot.engine for slot in first.control.snapshot().slots if slot.version == small]
            assert holders, "nobody serves it"
            for name in holders:
                assert await benches[name].said({"model": engine_name(small)}) == weights
                asked += 1
            await asyncio.sleep(0.005)

    await neighbour(first, rank=128)  # which is only asked where these cannot
    async with first.running(), second.running():
        for bench in benches.values():
            await bench.until(lambda state: small in state.ready)
            assert slots_of(bench)[0] == 16
        asking = asyncio.create_task(ask())
        try:
            large = first.adapter("saas_c", seed=2, rank=40)
            both: set[Digest] = {small, large}
            for bench in benches.values():
                await bench.until(lambda state: set(state.ready) == both)
                assert slots_of(bench)[0] == 64
        finally:
            done.set()
            await asking
    assert asked > 20
    assert [bench.kinds().count("recycling") for bench in benches.values()] == [1, 1]


async def test_three_engines_grow_for_a_larger_rank_and_no_version_is_without_one(tmp_path: Path) -> None:
    """What the first leaves behind makes others want to grow, too. Two may go in the same moment where the
    third stands in for what they share; the registry sees to it that it serves that already."""
    names = [f"engine-{number}" for number in range(3)]
    pairs = [set(pair) for pair in combinations(names, 2)]
    benches = [Bench(tmp_path / name, engine=name, max_lora_rank=64) for name in names]
    first = benches[0]
    for bench in benches[1:]:
        bench.share(first)
    for number in range(9):
        first.adapter(f"bank_{number}", seed=number)
    await neighbour(first, rank=128)  # which is only asked where these cannot
    served: set[Digest] = set()
    down: set[frozenset[str]] = set()
    without: set[Digest] = set()

    def homes_of() -> dict[Digest, set[str]]:
        homes: dict[Digest, set[str]] = {}
        for slot in first.control.snapshot().slots:
            homes.setdefault(slot.version, set()).add(slot.engine)
        return homes

    def look() -> None:
        known = first.control.snapshot()
        boots = {each.engine: each.boot for each in known.engines if each.up}
        down.add(frozenset(each.engine for each in known.engines if not each.up))
        without.update(served - {slot.version for slot in known.slots if boots.get(slot.engine) == slot.boot})

    async with benches[0].running(), benches[1].running(), benches[2].running():
        # An engine is settled before it is asked for anything, too.
        await first.until(
            lambda _: all(any(homes >= pair for homes in homes_of().values()) for pair in pairs)
        )
        for bench in benches:
            await bench.until(lambda state: state.settled and state.is_ready)
            assert slots_of(bench)[0] == 16
        served.update(homes_of())
        first.control.watch(look)
        large = first.adapter("saas_c", seed=9, rank=40)

        def everywhere(state: AgentState) -> bool:
            return sum(slot.version == large for slot in first.control.snapshot().slots) == 2

        await first.until(everywhere)
        assert any(down), "nobody had to start afresh"
        assert max(map(len, down)) < 3
        assert not without
