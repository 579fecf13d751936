"""What may happen to an engine, its agent and the registry: no wrong answer, and nobody has to come."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from registry.digests import Digest
from registry.names import engine_name
from server.engines import folders
from server.engines.state import AgentState
from server.testing.fake_model import signature
from tests.unit.server.engines.bench import QUICK, SLOW, Bench, cmdline, group_of


def served_by(bench: Bench) -> int:
    """The fake vLLM itself, below its guardian."""
    return next(pid for pid in group_of(bench) if "guardian" not in cmdline(pid))


async def ready(bench: Bench, version: Digest, *, other_than: str | None = None) -> AgentState:
    return await bench.until(lambda state: version in state.ready and state.boot != other_than)


async def test_an_engine_that_stops_answering_is_replaced_and_a_pause_is_sat_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=replace(QUICK, heartbeat=0.3, answer=0.2, misses=3))
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        first = (await ready(bench, version)).boot
        os.kill(served_by(bench), signal.SIGSTOP)
        await bench.until(lambda state: any("did not answer" in event.text for event in bench.events))
        os.kill(served_by(bench), signal.SIGCONT)
        count = len(bench.events)
        await bench.until(lambda state: state.is_ready)
        assert bench.agent.state.boot == first, bench.events[count:]
        os.kill(served_by(bench), signal.SIGSTOP)
        state = await ready(bench, version, other_than=first)
        assert await bench.said({"model": engine_name(version)}) == {signature(bench.weights("bank_a"))}
        assert state.is_ready


async def test_of_two_agents_with_one_name_the_later_goes_on_and_the_other_takes_over(tmp_path: Path) -> None:
    first = Bench(tmp_path / "first", cadence=QUICK)
    version = first.adapter("bank_a", seed=1)
    second = Bench(tmp_path / "second", cadence=QUICK)
    second.share(first)
    async with first.running():
        await ready(first, version)
        async with second.running():
            taken = await ready(second, version)
            await first.until(lambda state: "standing by" in state.doing)
            assert group_of(first) == [], "its vLLM is gone: nobody could be answered by it"
            await asyncio.sleep(5 * QUICK.heartbeat)
            assert second.agent.state.boot == taken.boot, "they do not fight"
        await ready(first, version)
        assert {slot.boot for slot in first.control.snapshot().slots} == {first.agent.state.boot}


async def test_an_agent_that_was_taken_for_dead_says_everything_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        boot = (await ready(bench, version)).boot
        bench.control.suppose_dead(bench.spec.engine)
        assert bench.control.slots == set()
        await bench.until(lambda state: bench.control.slots == {version})
        assert bench.agent.state.boot == boot
        assert bench.kinds().count("loading") == 1


@pytest.mark.parametrize("skew", [timedelta(days=-2), timedelta(days=2)])
async def test_the_agents_clock_may_be_days_off(tmp_path: Path, skew: timedelta) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        await ready(bench, version)
        bench.clock.advance(skew.total_seconds())
        await bench.until(lambda state: len(bench.control.attestations) >= 2)
        second = bench.adapter("retail_b", seed=2)
        await ready(bench, second)
        assert bench.control.slots == {version, second}


async def test_without_the_registry_serving_goes_on_and_nothing_new_becomes_live(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        boot = (await ready(bench, version)).boot
        bench.control.reachable = False
        second = bench.adapter("retail_b", seed=2)
        await asyncio.sleep(5 * QUICK.heartbeat)
        assert set(bench.agent.state.ready) == {version}
        assert await bench.said({"model": engine_name(version)}) == {signature(bench.weights("bank_a"))}
        bench.control.reachable = True
        assert (await ready(bench, second)).boot == boot


async def test_a_full_disk_holds_the_newcomer_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        await ready(bench, version)
        whole = folders.write_new

        def full(path: Path, data: bytes) -> None:
            whole(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("server.engines.cache.write_new", full)
        second = bench.adapter("retail_b", seed=2)
        state = await bench.until(
            lambda state: second in state.not_ready and "No space left" in state.not_ready[second].text
        )
        assert set(state.ready) == {version}
        monkeypatch.setattr("server.engines.cache.write_new", whole)
        await ready(bench, second)
        assert not [entry.name for entry in bench.cache.root.iterdir() if entry.name.startswith(".draft")]


async def test_weights_that_are_no_numbers_are_refused_before_any_load(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    good = bench.adapter("bank_a", seed=1)
    async with bench.running():
        await ready(bench, good)
        for name, value in (("nan_b", float("nan")), ("huge_c", 1e20)):
            bad = bench.adapter(name, seed=3, fill=value)
            state = await bench.until(lambda state, bad=bad: bad in state.not_ready and state.settled)  # type: ignore[misc]
            assert "adapter_" in state.not_ready[bad].text
        assert bench.kinds().count("loading") == 1


async def test_requests_under_way_finish_before_vllm_is_stopped(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        await ready(bench, version)
        await bench.fault(slow_first_byte=0.6)
        asking = asyncio.create_task(bench.said({"model": engine_name(version)}))
        await asyncio.sleep(0.1)
        bench.agent.stop()
        assert await asking == {signature(bench.weights("bank_a"))}
    assert "drained" in bench.kinds()
    assert not bench.control.announced[-1].up


async def _answering_when_it_is_renewed(bench: Bench, seconds: float) -> asyncio.Task[set[str]]:
    """An answer of its first version, and then a third one for an engine of two names."""
    for seed in (1, 2):
        version = bench.adapter("bank_a", seed=seed)
        await ready(bench, version)
    await bench.fault(slow_first_byte=seconds)
    asking = asyncio.create_task(bench.said({"model": engine_name(version)}))
    await asyncio.sleep(0.1)
    bench.adapter("bank_a", seed=3)
    await bench.until(lambda state: state.doing == "draining")
    return asking


async def test_a_renewal_cuts_no_answer_and_a_stop_meanwhile_waits_no_longer_than_ever(
    tmp_path: Path,
) -> None:
    cadence = replace(SLOW, drain=0.2)
    bench = Bench(tmp_path / "renewed", cadence=cadence, max_loras=1, max_cpu_loras=2)
    async with bench.running():
        first = bench.agent.state.boot
        asking = await _answering_when_it_is_renewed(bench, 2.0)
        assert len(await asking) == 1
        await bench.until(lambda state: state.boot not in (None, first) and len(state.ready) == 2)
    stopped = Bench(tmp_path / "stopped", cadence=cadence, max_loras=1, max_cpu_loras=2)
    async with stopped.running():
        asking = await _answering_when_it_is_renewed(stopped, 60.0)
    with pytest.raises(aiohttp.ClientError):
        await asking


async def test_an_engine_that_dies_while_it_is_renewed_is_not_waited_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_loras=1, max_cpu_loras=2)
    async with bench.running():
        asking = await _answering_when_it_is_renewed(bench, 60.0)
        os.kill(served_by(bench), signal.SIGKILL)
        await bench.until(lambda state: state.boot is not None and len(state.ready) == 2)
        with pytest.raises(aiohttp.ClientError):
            await asking


async def test_d1_a_careless_base_probe_sees_an_adapter_and_the_null_adapter_does_not(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, max_loras=1)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        await ready(bench, version)
        await bench.fault(slow_adapters=0.5)
        busy = asyncio.create_task(bench.said({"model": engine_name(version)}))
        await asyncio.sleep(0.1)
        mine = {signature(bench.weights("bank_a"))}
        assert await bench.said({"model": ""}) == mine, "D1: another's weights, under the base's name"
        assert await bench.said({"model": "tenon-null"}) == {"base"}
        assert await busy == mine


async def test_a_base_that_changes_under_the_engine_ends_the_boot(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cadence=QUICK)
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        first = (await ready(bench, version)).boot
        await bench.fault(base_is="other weights")
        await ready(bench, version, other_than=first)
        assert any("engine_base_unproven" in event.text for event in bench.events)


async def test_an_agent_that_is_killed_leaves_no_engine_behind(tmp_path: Path) -> None:
    """Its pipe to the guardian closes, however it died."""
    bench = Bench(tmp_path)
    script = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from tests.unit.server.engines.bench import Bench\n"
        "async def main():\n"
        "    bench = Bench(Path(sys.argv[1]), port=int(sys.argv[2]))\n"
        "    bench.adapter('bank_a', seed=1)\n"
        "    await bench.agent.run()\n"
        "asyncio.run(main())\n"
    )
    agent = subprocess.Popen(  # noqa: ASYNC220 (it is started once and killed)
        [sys.executable, "-c", script, str(tmp_path), str(bench.spec.port)]
    )
    try:
        for _ in range(1500):
            if await answers(bench):
                break
            await asyncio.sleep(0.02)
        assert group_of(bench)
    finally:
        agent.kill()
        agent.wait()
    for _ in range(500):
        if not group_of(bench):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("vLLM outlived its agent")


async def answers(bench: Bench) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(bench.spec.url + "/health") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
