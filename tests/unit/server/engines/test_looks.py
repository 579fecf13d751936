"""What is to be looked at again, and when."""

import asyncio
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.feed import State
from registry.names import engine_name
from server.engines.boot import Boot
from server.engines.errors import EngineUnreachable
from server.engines.looks import Looks
from server.engines.residency import Plan
from tests.unit.server.engines.bench import SLOW, Bench

A, B, C = sorted(Digest.of(name) for name in (b"a", b"b", b"c"))


def able(version: Digest) -> bool:
    return True


def drained(looks: Looks, serve: tuple[Digest, ...]) -> list[Digest]:
    found = []
    while (version := looks.next(serve, able)) is not None:
        found.append(version)
        looks.seen(version, len(found))
    return found


async def quiet(bench: Bench, *versions: Digest) -> Boot:
    """All are ready, and no load owes anybody a look."""
    await bench.until(lambda state: all(version in state.ready for version in versions))
    life = bench.agent._life
    assert life is not None
    boot = life.boot
    assert boot is not None
    await bench.until(lambda state: not boot.owing)
    return boot


def test_after_a_load_those_in_service_are_looked_at_once() -> None:
    looks = Looks()
    looks.owe([A, B, C])
    assert drained(looks, (C, A)) == [C, A]


def test_owed_is_what_was_loaded_beside_and_not_what_a_heartbeat_asks_for() -> None:
    looks = Looks()
    looks.beat([A])
    assert not looks.owing([A])
    looks.owe([A, B])
    assert looks.owing([A])
    looks.seen(A, 1)
    assert not looks.owing([A])


def test_at_a_heartbeat_all_are_and_those_in_service_first() -> None:
    looks = Looks()
    looks.beat([A, B, C])
    assert drained(looks, (C,)) == [C, A, B]
    assert drained(looks, (C,)) == []


def test_a_round_goes_on_over_heartbeats_until_all_had_their_look() -> None:
    looks = Looks()
    looks.beat([A, B, C])
    looks.seen(A, 1)
    looks.beat([A, B, C])
    looks.seen(B, 2)
    looks.beat([A, B, C])
    assert drained(looks, ()) == [C]
    looks.beat([A, B])
    looks.beat([A, C])  # B has gone meanwhile
    assert drained(looks, ()) == [A]


def test_whoever_waited_longest_is_next_however_often_others_are_owed_one() -> None:
    looks, seen = Looks(), []
    for now in range(1, 7):
        looks.owe([A, B, C])  # a load each time, and time for one look between two
        version = looks.next((A, B, C), able)
        assert version is not None
        looks.seen(version, now)
        seen.append(version)
    assert seen == [A, B, C, A, B, C]


def test_what_a_load_owes_does_not_wait_for_a_round_and_comes_first() -> None:
    looks = Looks()
    looks.beat([A, B])
    looks.owe([B])
    assert looks.next((A, B), able, round_=False) == B
    assert looks.next((A, B), able) == B
    looks.seen(B, 1)
    assert looks.next((A, B), able, round_=False) is None
    assert looks.next((A, B), able) == A


def test_who_cannot_be_looked_at_holds_nobody_up() -> None:
    looks = Looks()
    looks.beat([A, B, C])
    assert looks.next((A,), lambda version: version == C) == C


def test_the_look_that_is_longest_ago_is_that_of_one_of_those_asked_for() -> None:
    looks = Looks()
    assert looks.oldest([]) is None
    for now, version in enumerate((A, B, C, A), start=1):
        looks.seen(version, now)
    assert looks.oldest([A, B, C]) == 2
    assert looks.oldest([A, C]) == 3
    assert looks.oldest([]) is None


async def test_the_age_that_is_shown_is_that_of_whoever_in_service_waited_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, now = Bench(tmp_path), asyncio.get_running_loop().time

    def shown() -> float:
        text = bench.agent.metrics.render(bench.agent.state).decode()
        (line,) = re.findall(r"^tenon_engine_attest_age_seconds (.*)$", text, re.MULTILINE)
        return float(line)

    assert shown() == 0, "nothing is in service"
    versions = [bench.adapter(f"tenant_{seed}", seed=seed) for seed in (1, 2)]
    async with bench.running():
        boot = await quiet(bench, *versions)
        assert 0 < shown() < 100
        monkeypatch.setattr("server.engines.boot._now", lambda: now() + 1000)
        assert 1000 < shown() < 1100
        await boot.attest()
        assert await boot.look()
        assert 1000 < shown() < 1100, "one of two was looked at"
        assert await boot.look()
        assert 0 < shown() < 100
        monkeypatch.setattr("server.engines.boot._now", lambda: now() + 2000)
        for version in versions:
            assert 1000 < shown() < 1100
            bench.control.revoke(version)
            await bench.until(lambda state, version=version: version not in state.ready)  # type: ignore[misc]
        assert shown() == 0, "nothing is in service any more"


async def test_something_new_does_not_wait_for_all_looks_of_a_heartbeat(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    versions = [bench.adapter(f"tenant_{seed}", seed=seed) for seed in (1, 2, 3)]
    async with bench.running():
        await bench.until(lambda state: all(version in state.ready for version in versions))
        boot = bench.agent._life.boot  # type: ignore[union-attr]
        assert boot is not None
        while await boot.look():
            pass
        asked: list[str] = []
        probe = boot._engine.probe

        async def noted(**given: object) -> object:
            asked.append(str(given["model"]))
            return await probe(**given)  # type: ignore[arg-type]

        boot._engine.probe = noted  # type: ignore[method-assign]
        await boot.attest()
        assert asked == ["tenon-null"]
        while await boot.look():
            pass
        assert set(asked[1:]) == {engine_name(version) for version in versions}
        assert len(asked) == 4


async def test_rounds_take_no_more_of_the_engine_than_their_share(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=replace(SLOW, heartbeat=1.0, looking=0.25, settle=0.0))
    versions = [bench.adapter(f"tenant_{seed}", seed=seed) for seed in (1, 2, 3)]
    async with bench.running():
        boot = await quiet(bench, *versions)
        loop, enough = asyncio.get_running_loop(), asyncio.Event()
        looks: list[tuple[float, float]] = []
        engine, probe = boot._engine, boot._engine.probe

        async def noted(**given: object) -> object:
            began = loop.time()
            found = await probe(**given)  # type: ignore[arg-type]
            if given["model"] != "tenon-null":
                await asyncio.sleep(0.02)
                looks.append((began, loop.time()))
                if len(looks) == len(versions):
                    enough.set()
            return found

        engine.probe = noted  # type: ignore[assignment, method-assign]
        async with asyncio.timeout(20):
            await enough.wait()
    for (began, ended), (again, _) in pairwise(looks):
        assert again - began >= (ended - began) / 0.25


@pytest.mark.parametrize("often", [False, True])
async def test_others_are_looked_at_again_after_a_load_however_much_happens(
    tmp_path: Path, often: bool
) -> None:
    """Not at once, because who promoted waits for an answer; and not only when it is quiet."""
    bench = Bench(tmp_path, cadence=replace(SLOW, settle=0.2))
    first = bench.adapter("tenant_1", seed=1)
    async with bench.running():
        await bench.until(lambda state: first in state.ready and state.settled)
        life = bench.agent._life
        assert life is not None
        assert life.boot is not None
        seen: list[str] = []
        probe = life.boot._engine.probe

        async def noted(**given: object) -> object:
            seen.append(str(given["model"]))
            return await probe(**given)  # type: ignore[arg-type]

        life.boot._engine.probe = noted  # type: ignore[assignment, method-assign]
        second = bench.adapter("tenant_2", seed=2)
        await bench.until(lambda state: second in state.ready)
        assert engine_name(first) not in seen
        loop = asyncio.get_running_loop()
        until = loop.time() + 10
        while engine_name(first) not in seen:
            assert loop.time() < until, seen
            if often:
                bench.agent._following.news.set()
            await asyncio.sleep(0.05)


async def test_news_that_never_end_do_not_keep_a_round_from_its_end(tmp_path: Path) -> None:
    """With no time between two states, looks have their share of each heartbeat all the same."""
    bench = Bench(tmp_path, cadence=replace(SLOW, heartbeat=0.3, settle=0.0))
    versions = [bench.adapter(f"tenant_{seed}", seed=seed) for seed in (1, 2, 3)]
    async with bench.running():
        boot = await quiet(bench, *versions)
        seen: set[str] = set()
        turn, probe = boot.reconcile, boot._engine.probe

        async def told(state: State) -> Plan:
            found = await turn(state)
            bench.agent._following.news.set()
            return found

        async def noted(**given: object) -> object:
            seen.add(str(given["model"]))
            return await probe(**given)  # type: ignore[arg-type]

        boot.reconcile = told  # type: ignore[method-assign]
        boot._engine.probe = noted  # type: ignore[assignment, method-assign]
        await bench.until(lambda state: {engine_name(version) for version in versions} <= seen)


async def test_probes_that_fail_are_not_asked_again_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=replace(SLOW, heartbeat=0.2, settle=0.0, retry=0.2, misses=3))
    version = bench.adapter("tenant_1", seed=1)
    async with bench.running():
        boot, loop, failed = await quiet(bench, version), asyncio.get_running_loop(), list[float]()
        probe = boot._engine.probe

        async def noted(**given: object) -> object:
            if given["model"] == "tenon-null":
                return await probe(**given)  # type: ignore[arg-type]
            failed.append(loop.time())
            raise EngineUnreachable("no answer")

        boot._engine.probe = noted  # type: ignore[assignment, method-assign]
        await bench.until(lambda state: state.boot != boot.witness.boot)
    assert len(failed) == 3
    assert all(later - earlier >= 0.2 for earlier, later in pairwise(failed))
