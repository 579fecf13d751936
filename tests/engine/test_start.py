"""How vLLM is started on a CPU: one import for all of its processes, and all of them end with the agent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from server.engines.process import EngineProcess
from tests.engine.conftest import RealEngine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600), pytest.mark.xdist_group("engine")]
ROOT = Path(__file__).parents[2]

AGENT = """
import asyncio, os, sys
from pathlib import Path
from server.engines.client import VllmClient
from server.engines.command import command
from server.engines.process import EngineProcess
from tests.engine.conftest import demo_spec

async def main(home):
    spec = demo_spec()
    argv, environment = command(spec, {"PATH": os.environ["PATH"], "HOME": str(home)})
    process = EngineProcess(argv=argv, environment=environment, log=home / "vllm.log")
    process.start()
    async with VllmClient(spec.url) as client:
        await process.wait_ready(client.answers, limit=100)
    print(process.pid, flush=True)
    await process.wait()

asyncio.run(main(Path(sys.argv[1])))
"""


def members(group: int) -> dict[int, tuple[int, str]]:
    """Living processes of a group: their parents and titles, by their ids."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                title = (entry / "cmdline").read_text().replace("\0", " ").strip()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] not in ("Z", "X"):
                found[int(entry.name)] = (int(fields[1]), title)
    return found


def titled(found: dict[int, tuple[int, str]], title: str) -> int:
    (pid,) = (pid for pid, (_, name) in found.items() if name.startswith(title))
    return pid


def guardian(process: EngineProcess) -> int:
    assert process.pid is not None
    return process.pid


def test_core_and_worker_come_from_one_import(engine: RealEngine) -> None:
    found = members(guardian(engine.process))
    core, worker = titled(found, "VLLM::EngineCore"), titled(found, "VLLM::Worker")
    server = found[core][0]
    assert found[worker][0] == server
    first = found[server][0]
    assert found[first][0] == guardian(engine.process)
    assert len(list(Path(f"/proc/{server}/task").iterdir())) == 1, "what is forked has one thread for ever"


def test_the_workers_threads_stay_on_the_cores_that_vllm_chose(engine: RealEngine) -> None:
    worker = titled(members(guardian(engine.process)), "VLLM::Worker")
    chosen = os.sched_getaffinity(worker)
    assert {
        frozenset(os.sched_getaffinity(int(task.name))) for task in Path(f"/proc/{worker}/task").iterdir()
    } == {frozenset(chosen)}
    if (usable := len(os.sched_getaffinity(0))) > 1:
        assert len(chosen) < usable, "vLLM leaves a core to its scheduler"


def bound(pids: Iterable[int]) -> set[Path]:
    """Where the unix sockets of these processes lie."""
    held = {
        str(entry.readlink()).removeprefix("socket:[").removesuffix("]")
        for pid in pids
        for entry in Path(f"/proc/{pid}/fd").iterdir()
        if entry.is_symlink()
    }
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {Path(line[7]) for line in lines if len(line) == 8 and line[6] in held and line[7][0] == "/"}


def test_its_sockets_lie_in_a_folder_of_its_own(engine: RealEngine) -> None:
    folders = {path.parent for path in bound(members(guardian(engine.process)))}
    assert any(folder.name.startswith("tenon-vllm-") for folder in folders)
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}


def test_all_of_vllm_ends_with_an_agent_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as agent:
        try:
            assert agent.stdout is not None
            group = int(agent.stdout.readline())
            assert len(members(group)) >= 5, "guardian, API server, nursery, core, worker"
        finally:
            agent.send_signal(signal.SIGKILL)
    limit = time.monotonic() + 60
    while left := members(group):
        assert time.monotonic() < limit, f"{left} outlive their agent"
        time.sleep(0.1)
