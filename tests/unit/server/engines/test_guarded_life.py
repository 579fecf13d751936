"""An agent whose engine should be guarded: it believes counters, and a violation ends the boot."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.engines.errors import EngineUncertified, EngineUnguarded
from server.engines.plugin.counters import Counters
from server.engines.plugin.violations import Violation, write
from tests.unit.server.engines.bench import QUICK, Bench

VIOLATION = Violation(kind="metadata", what="other slots", at="2026-01-02T00:00:00+00:00", step=9)


def _guarded(tmp_path: Path, **options: Any) -> Bench:
    bench = Bench(tmp_path, **options)
    bench.agent._around = replace(bench.agent._around, guard=tmp_path / "guard")
    return bench


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 (files and another task's state raise no event)
        await asyncio.sleep(0.01)


def _boots(tmp_path: Path) -> set[Path]:
    """The folders of the boots that were prepared, and not tidied away."""
    return {path.parent for path in (tmp_path / "guard").glob("*/guard.json")}


def _watched_one_step(folder: Path, *, worker: int = 1, loads: int = 1) -> None:
    counters = Counters(folder / f"{worker}.counters")
    for field in ("steps", "checked"):
        counters.add(field)
    counters.add("loads", loads)
    counters.close()


async def test_an_engine_that_only_says_it_is_guarded_never_comes_up(tmp_path: Path) -> None:
    bench = _guarded(tmp_path)
    with pytest.raises(EngineUnguarded):
        await bench.agent.run()
    assert not [event for event in bench.events if event.kind == "up"]
    assert list((tmp_path / "guard").iterdir()) == []


async def test_every_worker_has_to_be_watched(tmp_path: Path) -> None:
    bench = _guarded(tmp_path, device="cuda", tensor_parallel_size=2, allow_uncertified=True)
    running = asyncio.create_task(bench.agent.run())
    async with asyncio.timeout(60):
        await _until(lambda: bool(_boots(tmp_path)))
        for folder in _boots(tmp_path):
            _watched_one_step(folder)
        with pytest.raises(EngineUnguarded):
            await running
    assert not [event for event in bench.events if event.kind == "up"]


async def test_a_load_that_the_guard_has_not_seen_ends_the_boot_and_attests_nothing(tmp_path: Path) -> None:
    bench = _guarded(tmp_path, cadence=QUICK)
    bench.adapter("bank_a", seed=1)
    running = asyncio.create_task(bench.agent.run())
    async with asyncio.timeout(60):
        await _until(lambda: bool(_boots(tmp_path)))
        (first,) = _boots(tmp_path)
        _watched_one_step(first)  # the null adapter's load, and no other
        await _until(lambda: bool(_boots(tmp_path) - {first}))
        bench.agent.stop()
        await running
    assert any("engine_unguarded" in event.text for event in bench.events if event.kind == "failed")
    assert bench.control.attestations == []


async def test_a_violation_ends_the_boot_and_a_fresh_one_starts(tmp_path: Path) -> None:
    bench = _guarded(tmp_path)
    running = asyncio.create_task(bench.agent.run())
    async with asyncio.timeout(60):
        await _until(lambda: bool(_boots(tmp_path)))
        (first,) = _boots(tmp_path)
        _watched_one_step(first)
        await _until(lambda: bench.agent.state.up)
        _watched_one_step(first, worker=2)
        state = bench.agent.state
        assert state.guard is not None
        assert (state.guard.workers, state.guard.steps, state.guard.violations) == (2, 2, 0)
        assert state.as_json()["guard"]["steps"] == 2
        metrics = bench.agent.metrics.render(state).decode()
        assert 'tenon_engine_guard{counted="steps"} 2.0' in metrics
        write(first, VIOLATION)
        await _until(lambda: len(_boots(tmp_path)) == 2)
        (second,) = _boots(tmp_path) - {first}
        _watched_one_step(second)
        await _until(lambda: bench.agent.state.boot is not None)
        bench.agent.stop()
        await running
    kinds = [event.kind for event in bench.events]
    assert kinds.count("violated") == 1
    assert kinds.count("up") == 2
    assert [path.name for path in (tmp_path / "guard").iterdir()] == [first.name]  # kept for people


async def test_after_a_violation_vllm_is_not_asked_to_end(tmp_path: Path) -> None:
    """It would go on with what it is answering for as long as it has grace."""
    ended = "import sys\nfrom server.testing.fake_vllm import main\nmain(sys.argv[1:])\nprint('ended itself')"
    bench = _guarded(tmp_path, program=(sys.executable, "-c", ended))
    log = tmp_path / "vllm.log"
    running = asyncio.create_task(bench.agent.run())
    async with asyncio.timeout(60):
        await _until(lambda: bool(_boots(tmp_path)))
        (first,) = _boots(tmp_path)
        _watched_one_step(first)
        await _until(lambda: bench.agent.state.up)
        write(first, VIOLATION)
        await _until(lambda: len(_boots(tmp_path)) == 2)
        assert "ended itself" not in log.read_text()
        (second,) = _boots(tmp_path) - {first}
        _watched_one_step(second)
        await _until(lambda: bench.agent.state.up)
        bench.agent.stop()
        await running
    assert "ended itself" in log.read_text(), "as the second was, which did nothing wrong"


async def test_a_release_that_nobody_certified_never_comes_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path, faults='{"version": "0.33.0"}')
    with pytest.raises(EngineUncertified):
        await bench.agent.run()


async def test_a_guarded_engine_whose_disk_is_damaged_ends_what_it_is_answering(tmp_path: Path) -> None:
    bench = _guarded(tmp_path, cadence=QUICK)
    version = bench.adapter("bank_a", seed=1)
    running = asyncio.create_task(bench.agent.run())
    async with asyncio.timeout(60):
        await _until(lambda: bool(_boots(tmp_path)))
        (first,) = _boots(tmp_path)
        _watched_one_step(first, loads=2)
        await _until(lambda: version in bench.agent.state.ready)
        bench.cache.folder(version).rename(tmp_path / "moved away")
        await _until(lambda: bool(_boots(tmp_path) - {first}))
        told = [event.kind for event in bench.events]
        assert told[told.index("failed") :].count("drained") == 1
        bench.agent.stop()
        await running
