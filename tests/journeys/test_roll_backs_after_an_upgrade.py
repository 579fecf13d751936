"""Engines started afresh hold what is live and the version before. Two roll backs in a row under load go
further than that, and nobody is refused."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.names import AdapterName
from server.assembly import stack
from server.testing.fake_model import signature, weights_of
from tests.journeys.commands import tenon_here
from tests.journeys.conftest import Served, prepare, publish
from tests.journeys.load import Load, until

pytestmark = pytest.mark.slow
NAME = AdapterName("bank_a", "assistant")


@pytest.fixture
def two_engines(tmp_path: Path) -> Iterator[Served]:
    """Whatever ends of it is started again."""
    world = prepare(tmp_path)
    root, port = str(world.workspace.root), str(stack.Ports.free().vllm)
    try:
        up = ("up", "--fake-engine", "--engines", "2", "--detach", "--port", port, "-w", root)
        done = tenon_here(*up)
        assert done.code == 0, done.err
        world.running = stack.running(world.workspace)
        assert world.running is not None
        world.url = world.running.url("router")
        yield world
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


def _back(served: Served, load: Load, to: str) -> float:
    """Seconds that it took. Everybody else's answers stay what they are."""
    load.expected["bank_a"] |= {to}
    began = time.monotonic()
    done = tenon_here("rollback", str(NAME), "-w", str(served.workspace.root))
    took = time.monotonic() - began
    assert done.code == 0, done.err
    assert "Warning" not in done.err
    load.go_on()  # routers have heard
    load.expected["bank_a"] = {to}
    load.go_on()
    return took


def test_two_roll_backs_in_a_row(two_engines: Served, tmp_path: Path) -> None:
    served = two_engines
    versions, signed = [served.versions["bank_a"]], [signature(served.weights["bank_a"])]
    for seed in (7, 8):
        versions.append(publish(served, "bank_a", tmp_path / str(seed), seed=seed))
        signed.append(signature(weights_of(tmp_path / str(seed))))
        until(lambda: len(_on(served, versions[-1])) == 2, [])
    for role in ("engine", "engine-1"):
        _start_afresh(served, role, versions[2])
    until(lambda: len(_on(served, versions[1])) == 2, [])
    assert _on(served, versions[0]) == set()  # wanted by nobody, and their boots have never had it
    with Load(served) as load:
        took = _back(served, load, signed[1])
        assert took < 5  # a commit without a load
        _back(served, load, signed[0])
    assert load.wrong == []
    assert served.catalog.alias(NAME).version == versions[0]
