"""`tenon up` and kill -9: whatever ends is started again, and nobody has to come."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

from server.assembly import stack
from server.assembly.processes import SUPERVISOR, Running
from server.testing.fake_model import signature, signed_by
from tests.journeys.commands import ROOT, surroundings, tenon, tenon_here
from tests.journeys.conftest import TENANTS, Served, prepare

pytestmark = pytest.mark.slow
LIMIT = 90.0


@pytest.fixture
def left_running(tmp_path: Path) -> Iterator[Served]:
    world = prepare(tmp_path)
    root = str(world.workspace.root)
    port = str(stack.Ports.free().vllm)
    try:
        done = tenon_here(
            "up", "--fake-engine", "--engines", "2", "--detach", "--port", port, "--json", "-w", root
        )
        assert done.code == 0, done.err
        world.url = json.loads(done.out)["url"].removesuffix("/v1")
        yield world
    finally:
        down = tenon_here("down", "-w", root)
    assert down.code == 0
    assert stack.running(world.workspace) is None


def _state(world: Served) -> Running:
    found = stack.running(world.workspace)
    assert found is not None
    return found


def _pid(world: Served, role: str) -> int:
    return next(process.pid for process in _state(world).processes if process.role == role)


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def _answered(world: Served) -> bool:
    """Everybody, and with their own adapter; a failure is no answer, somebody else's answer is the end."""
    for tenant in TENANTS:
        with openai.OpenAI(
            base_url=f"{world.url}/v1", api_key=world.keys[tenant], max_retries=0, timeout=10
        ) as client:
            try:
                answer = client.chat.completions.create(
                    model="assistant", messages=[{"role": "user", "content": "pay"}], max_tokens=64
                )
            except openai.OpenAIError:
                return False
            assert signed_by(answer.choices[0].message.content or "") == {signature(world.weights[tenant])}
    return True


def _attested(world: Served) -> bool:
    """Both engines are up, and each holds what its own boot was seen to hold."""
    boots = {engine.engine: engine.boot for engine in world.catalog.engines() if engine.up}
    slots = world.catalog.slots()
    return len(boots) == 2 and all(
        {engine for engine, boot in boots.items() if any(
            slot.engine == engine and slot.boot == boot and slot.version == version for slot in slots
        )} == set(boots)
        for version in world.versions.values()
    )  # fmt: skip


def test_what_is_killed_of_a_stack_that_was_left_running_comes_back(left_running: Served) -> None:
    world = left_running
    _until(lambda: _answered(world) and _attested(world), "never served")
    for role in ("engine-1", "router", "control", "engine"):
        before = _pid(world, role)
        os.kill(before, signal.SIGKILL)
        _until(lambda role=role, before=before: _pid(world, role) != before, f"{role} stays away")  # type: ignore[misc]
        _until(lambda: _answered(world) and _attested(world), f"not served after {role} was killed")
    both = [_pid(world, role) for role in ("engine", "engine-1")]
    for pid in both:
        os.kill(pid, signal.SIGKILL)
    _until(
        lambda: not {_pid(world, role) for role in ("engine", "engine-1")} & set(both), "engines stay away"
    )
    _until(lambda: _answered(world) and _attested(world), "not served after both engines were killed")
    log = world.workspace.logs / "supervisor.log"
    _until(lambda: "engine-1: ready again" in log.read_text(), "the supervisor has not seen it")
    assert "router: ended" in log.read_text()
    assert tenon_here("log", "verify", "-w", str(world.workspace.root)).code == 0


@pytest.fixture
def up(tmp_path: Path) -> Iterator[tuple[Served, subprocess.Popen[bytes]]]:
    """In a terminal of its own."""
    world = prepare(tmp_path)
    command = [
        sys.executable,
        "-m",
        "server.cli.main",
        "up",
        "--fake-engine",
        "-w",
        str(world.workspace.root),
    ]
    port = ["--port", str(stack.Ports.free().vllm)]
    with subprocess.Popen([*command, *port], cwd=ROOT, env=surroundings(), stderr=subprocess.PIPE) as process:
        try:
            _until(lambda: (found := stack.running(world.workspace)) is not None
                   and any(each.kind == SUPERVISOR for each in found.processes), "not up")  # fmt: skip
            yield world, process
        finally:
            process.kill()
    assert stack.running(world.workspace) is None


def said(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    return process.stderr.read().decode()


def test_a_stack_that_does_not_stay_up_ends_with_an_error(up: tuple[Served, subprocess.Popen[bytes]]) -> None:
    world, terminal = up
    killed: set[int] = set()
    deadline = time.monotonic() + LIMIT
    while terminal.poll() is None and time.monotonic() < deadline:
        found = stack.running(world.workspace)
        for process in found.processes if found else ():
            if process.role == "router" and process.pid not in killed and process.alive():
                os.kill(process.pid, signal.SIGKILL)
                killed.add(process.pid)
        time.sleep(0.05)
    assert terminal.wait(30) == 1
    assert len(killed) == 6
    told = said(terminal)
    assert "router ended 6 times within 300 s" in told
    assert told.count("it is started again in") == 5


def test_another_terminal_stops_what_this_one_serves(up: tuple[Served, subprocess.Popen[bytes]]) -> None:
    world, terminal = up
    assert tenon("down", "-w", str(world.workspace.root)).code == 0
    assert terminal.wait(60) == 0
    assert "ended" not in said(terminal)
