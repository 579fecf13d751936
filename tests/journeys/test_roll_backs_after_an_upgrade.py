"""Engines started afresh hold what is live and the version before. Two roll backs in a row under load
go further than that, and nobody is refused."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.names import AdapterName
from server.assembly import stack
from server.testing.fake_model import signature, weights_of
from tests.journeys.commands import tenon_here
from tests.journeys.conftest import GATE, Served, evaluated, prepare
from tests.journeys.load import Load, until

pytestmark = pytest.mark.slow
NAME = AdapterName("bank_a", "assistant")


@pytest.fixture
def two_engines(tmp_path: Path) -> Iterator[tuple[Served, list[Digest], list[str]]]:
    """Whatever ends of it is started again. And three versions, with how each signs its answers."""
    world = prepare(tmp_path)
    versions, signed = [world.versions["bank_a"]], [signature(world.weights["bank_a"])]
    for seed in (7, 8):
        versions.append(evaluated(world, "bank_a", tmp_path / str(seed), seed=seed))
        signed.append(signature(weights_of(tmp_path / str(seed))))
    root, port = str(world.workspace.root), str(stack.Ports.free().vllm)
    try:
        up = ("up", "--fake-engine", "--engines", "2", "--detach", "--port", port, "-w", root)
        done = tenon_here(*up)
        assert done.code == 0, done.err
        world.running = stack.running(world.workspace)
        assert world.running is not None
        world.url = world.running.url("router")
        yield world, versions, signed
    finally:
        tenon_here("down", "-w", root)


def _on(served: Served, version: Digest) -> set[str]:
    """The boots that it was attested on, of those that are up."""
    up = {(engine.engine, engine.boot) for engine in served.catalog.engines() if engine.up}
    return {slot.boot for slot in served.catalog.slots(version) if (slot.engine, slot.boot) in up}


def _start_afresh(served: Served, role: str, live: Digest) -> None:
    """As an upgrade does, one engine after the other."""
    running, before = stack.running(served.workspace), _on(served, live)
    assert running is not None
    os.kill(next(each.pid for each in running.processes if each.role == role), signal.SIGTERM)
    until(lambda: len(_on(served, live)) == 2 and len(_on(served, live) & before) == 1, [])


def _back(served: Served) -> int:
    """How often engines were asked to load something for it first."""
    size = served.catalog.log_size()
    done = tenon_here("rollback", str(NAME), "-w", str(served.workspace.root))
    assert done.code == 0, done.err
    assert "Warning" not in done.err
    return sum(entry.kind == "promotion.prepared" for entry in served.catalog.entries(size, 1000))


@contextmanager
def _agents_stand_still(served: Served) -> Iterator[None]:
    """Their engines answer, and load nothing."""
    running = stack.running(served.workspace)
    assert running is not None
    for agent in running.engines:
        os.kill(agent.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for agent in running.engines:
            os.kill(agent.pid, signal.SIGCONT)


def test_two_roll_backs_in_a_row(two_engines: tuple[Served, list[Digest], list[str]]) -> None:
    served, versions, signed = two_engines
    until(lambda: len(_on(served, versions[0])) == 2, [])
    for version in versions[1:]:
        served.catalog.promote(NAME, version, gate=GATE, actor="test")
        until(lambda version=version: len(_on(served, version)) == 2, [])  # type: ignore[misc]
    for role in ("engine", "engine-1"):
        _start_afresh(served, role, versions[2])
    until(lambda: len(_on(served, versions[1])) == 2, [])
    assert _on(served, versions[0]) == set()  # wanted by nobody, and their boots have never had it
    with Load(served, bank_a=signed[2]) as load, ThreadPoolExecutor(1) as aside:
        with _agents_stand_still(served):
            load.expected["bank_a"] = {signed[2], signed[1]}
            assert _back(served) == 0  # engines kept it
            load.go_on()  # the router has heard
            load.expected["bank_a"] = {signed[1]}
            again = aside.submit(_back, served)
            load.until(lambda: _prepared(served) == versions[0])
            load.go_on()
            assert served.catalog.alias(NAME).version == versions[1]
            load.expected["bank_a"] = {signed[1], signed[0]}
        assert again.result(60) == 1
        load.go_on()
        load.expected["bank_a"] = {signed[0]}
        load.go_on()
    assert load.wrong == []
    assert served.catalog.alias(NAME).version == versions[0]


def _prepared(served: Served) -> Digest | None:
    return next((each.version for each in served.catalog.snapshot().preparations), None)
