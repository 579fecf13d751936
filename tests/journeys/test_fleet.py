"""Three engines on one machine: one dies, a tenant moves to an engine of its own and back, and nobody is
answered wrongly or not at all."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.models import Isolation, Level
from server.assembly import stack
from server.demo.build_base import SHIPPED_BASE
from server.testing.fake_model import signature, weights_of
from tests.journeys.commands import tenon_here
from tests.journeys.conftest import Served, evaluated, prepare
from tests.journeys.load import Load, until

pytestmark = pytest.mark.slow
STILL = 20.0
"""Seconds: less than after which the control plane takes an engine for dead."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Served]:
    world = prepare(tmp_path)
    world.running = stack.start(
        world.workspace,
        engine=stack.EngineOptions(base=str(SHIPPED_BASE), base_name="demo", fake=True),
        ports=stack.Ports.free(engines=3),
        tied=True,
        progress=lambda _role, _doing: None,
    )
    world.url = world.running.url("router")
    yield world
    stack.stop(world.workspace)


def _on(served: Served, version: Digest) -> set[str]:
    return {slot.engine for slot in served.catalog.slots(version)}


def test_versions_live_on_two_engines_of_three_and_move_without_a_failed_request(fleet: Served) -> None:
    versions = fleet.versions
    until(lambda: all(len(_on(fleet, each)) == 2 for each in versions.values()), [])
    with Load(fleet) as load:
        given = fleet.catalog.isolate_tenant("bank_a", Isolation(level=Level.DEDICATED), actor="test").engines
        load.until(lambda: _on(fleet, versions["bank_a"]) == set(given))
        load.until(
            lambda: not any(_on(fleet, versions[each]) & set(given) for each in ("retail_b", "saas_c"))
        )
        load.go_on()
        shown = {engine.state.engine: engine for engine in fleet.catalog.fleet().engines}
        assert [engine for engine in shown if shown[engine].exclusive == "bank_a"] == list(given)
        fleet.catalog.isolate_tenant("bank_a", Isolation(), actor="test")
        load.until(lambda: len(_on(fleet, versions["bank_a"])) == 2)
        load.go_on()
    assert load.wrong == []


def _isolate(served: Served, level: str, *more: str) -> None:
    words = ("tenant", "isolate", "bank_a", "--level", level, *more, "-w", str(served.workspace.root))
    done = tenon_here(*words)
    assert done.code == 0, done.err


def _merged(served: Served, version: Digest) -> bool:
    """One engine has it in its weights, and nobody else has it."""
    with_it = {engine.engine for engine in served.catalog.engines() if engine.merged == version}
    return len(with_it) == 1 and _on(served, version) == with_it


def test_a_tenant_goes_up_the_whole_ladder_and_back_under_the_same_api(fleet: Served, tmp_path: Path) -> None:
    first = fleet.versions["bank_a"]
    until(lambda: all(len(_on(fleet, each)) == 2 for each in fleet.versions.values()), [])
    with Load(fleet) as load:
        _isolate(fleet, "pinned")
        load.go_on()
        assert len(_on(fleet, first)) == 2
        _isolate(fleet, "dedicated")
        (given,) = fleet.catalog.tenant("bank_a").isolation.engines
        load.until(lambda: _on(fleet, first) == {given})
        load.go_on()
        _isolate(fleet, "merged")
        load.until(lambda: _merged(fleet, first) and _on(fleet, first) == {given})
        load.go_on()
        second = evaluated(fleet, "bank_a", tmp_path / "second", seed=7)
        load.expected["bank_a"] |= {signature(weights_of(tmp_path / "second"))}
        promoted = f"bank_a/assistant@{second}"
        done = tenon_here("promote", promoted, "--rule", "policy>=0.9", "-w", str(fleet.workspace.root))
        assert done.code == 0, done.err
        load.until(lambda: _merged(fleet, second))
        load.go_on()  # routers have heard
        load.expected["bank_a"] = {signature(weights_of(tmp_path / "second"))}
        load.go_on()
        _isolate(fleet, "shared")
        load.until(lambda: len(_on(fleet, second)) == 2)
        load.until(lambda: all(engine.up and engine.merged is None for engine in fleet.catalog.engines()))
        load.go_on()
    assert load.wrong == []


def test_an_agent_that_is_killed_takes_no_answer_with_it(fleet: Served) -> None:
    versions = fleet.versions
    until(lambda: all(len(_on(fleet, each)) == 2 for each in versions.values()), [])
    assert fleet.running is not None
    with Load(fleet) as load:
        victim = fleet.running.engines[1]
        os.kill(victim.pid, signal.SIGKILL)
        until(lambda: not victim.alive(), [])
        # Its control plane hears nothing of it any more, and the others take its versions over.
        load.until(lambda: not any("engine-1" in _on(fleet, each) for each in versions.values()))
        load.until(lambda: all(len(_on(fleet, each)) == 2 for each in versions.values()))
        load.go_on()
    assert load.wrong == []
    down = {engine.engine: engine.up for engine in fleet.catalog.engines()}
    assert down == {"engine-0": True, "engine-1": False, "engine-2": True}


def _with_children(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for each in found:  # grows meanwhile
        found += parents.get(each, ())
    return found


def test_what_stands_still_for_twenty_seconds_goes_on_by_itself(fleet: Served, tmp_path: Path) -> None:
    """The control plane, all agents, and one engine with everything: its requests wait, and are answered."""
    versions = fleet.versions
    until(lambda: all(len(_on(fleet, each)) == 2 for each in versions.values()), [])
    assert fleet.running is not None
    boots = {engine.engine: engine.boot for engine in fleet.catalog.engines()}
    (control,) = (each.pid for each in fleet.running.processes if each.role == "control")
    first, second, third = (each.pid for each in fleet.running.engines)
    still = [control, first, *_with_children(second), third]
    with Load(fleet) as load:
        for pid in still:
            os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        try:
            load.until(lambda: time.monotonic() - began > STILL)
        finally:
            for pid in still:
                os.kill(pid, signal.SIGCONT)
        load.go_on()
        new = evaluated(fleet, "bank_a", tmp_path / "new", seed=7)
        load.expected["bank_a"] |= {signature(weights_of(tmp_path / "new"))}
        promoted = f"bank_a/assistant@{new}"
        done = tenon_here("promote", promoted, "--rule", "policy>=0.9", "-w", str(fleet.workspace.root))
        assert done.code == 0, done.err
        load.go_on()  # routers have heard
        load.expected["bank_a"] = {signature(weights_of(tmp_path / "new"))}
        load.go_on()
    assert load.wrong == []
    assert {engine.engine: engine.boot for engine in fleet.catalog.engines() if engine.up} == boots
