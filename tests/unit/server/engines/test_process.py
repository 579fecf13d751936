"""Real processes: the child, whatever it leaves behind, and what happens when we are killed."""

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.engines.errors import EngineStartFailed
from server.engines.output import keep_small
from server.engines.process import EngineProcess

ROOT = Path(__file__).parents[4]

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) == 1:
    worker = subprocess.Popen([sys.executable, __file__, "worker"])
    print("pids", os.getpid(), worker.pid, flush=True)
time.sleep(120)
"""
"""Two processes that ignore SIGTERM, as a hung vLLM does (D5)."""

LEAVING = """
import os, subprocess, sys, time
if len(sys.argv) > 1:
    time.sleep(120)
worker = subprocess.Popen([sys.executable, __file__, "worker"])
print("pids", os.getpid(), worker.pid, flush=True)
sys.exit(7)
"""
"""A server process that dies and leaves its worker."""

LISTENING = """
import os, socket, time
listening = socket.socket(socket.AF_UNIX)
listening.bind(os.environ["VLLM_RPC_BASE_PATH"] + "/socket")
print("pids", os.getpid(), flush=True)
time.sleep(120)
"""
"""A socket between processes, which a kill leaves behind."""


def engine(tmp_path: Path, program: str, *, grace: float = 0.3) -> EngineProcess:
    script = tmp_path / "child.py"
    script.write_text(program)
    return EngineProcess(
        argv=(sys.executable, str(script)), environment={"PATH": ""}, log=tmp_path / "engine.log", grace=grace
    )


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


async def until(holds: Callable[[], bool]) -> None:
    """Another process does it: there is no event to wait for, so look again and again, with a limit."""
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError


def printed(log: Path) -> list[str]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [line for line in lines if line.startswith("pids")]


async def pids(log: Path) -> list[int]:
    """The process ids that the child printed, as soon as it has."""
    await until(lambda: bool(printed(log)))
    return [int(word) for word in printed(log)[0].split()[1:]]


async def gone(*numbers: int) -> None:
    await until(lambda: not any(alive(number) for number in numbers))


async def never() -> bool:
    return False


async def test_an_end_at_start_is_told_with_the_last_lines_of_the_log(tmp_path: Path) -> None:
    child = engine(tmp_path, "import sys; print('out of memory on node 0'); sys.exit(3)")
    child.start()
    with pytest.raises(EngineStartFailed, match=r"(?s)status 3.*out of memory on node 0"):
        await child.wait_ready(never, limit=20)
    await child.stop()


async def test_only_this_lifes_log_is_shown(tmp_path: Path) -> None:
    (tmp_path / "engine.log").write_text("a line of yesterday\n")
    child = engine(tmp_path, "print('today')")
    child.start()
    await child.wait()
    assert child.tail() == "today"
    await child.stop()
    assert (tmp_path / "engine.log").read_text() == "a line of yesterday\ntoday\n"


CHATTY = """
import pathlib, sys, time
print("early " + 2000 * "x", flush=True)
while pathlib.Path(sys.argv[0]).with_name("engine.log").stat().st_size > 1000:
    time.sleep(0.01)
print("late", flush=True)
"""
"""Goes on when its log was begun anew."""


async def test_a_log_that_gets_large_is_begun_anew_under_a_running_child(tmp_path: Path) -> None:
    script, log = tmp_path / "child.py", tmp_path / "engine.log"
    script.write_text(CHATTY)
    log.write_text("a line of yesterday\n")
    child = EngineProcess(argv=(sys.executable, str(script)), environment={"PATH": ""}, log=log, largest=1000)
    child.start()
    async with asyncio.timeout(20):
        assert await child.wait() == 0
    assert child.tail() == "late"
    assert log.read_text() == "late\n"
    before = (tmp_path / "engine.log.1").read_text()
    assert before.startswith("a line of yesterday\nearly xxx")
    await child.stop()


async def test_a_log_that_is_large_at_the_start_is_begun_anew_and_the_one_before_kept(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text(2000 * "a")
    (tmp_path / "engine.log.1").write_text("of the day before")
    child = engine(tmp_path, "print('today')")
    child._largest = 1000
    child.start()
    await child.wait()
    await child.stop()
    assert log.read_text() == "today\n"
    assert (tmp_path / "engine.log.1").read_text() == 2000 * "a"


def test_a_full_disk_keeps_no_log_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "engine.log"
    log.write_text(2000 * "a")

    def full(source: Path, target: Path) -> None:
        target.write_text("half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    assert keep_small(log, largest=1000)
    assert log.read_text() == ""
    assert not (tmp_path / "engine.log.1").exists()


async def test_a_start_that_takes_too_long_is_an_error(tmp_path: Path) -> None:
    child = engine(tmp_path, "import time; time.sleep(60)")
    child.start()
    with pytest.raises(EngineStartFailed, match="not ready after"):
        await child.wait_ready(never, limit=0.3)
    assert child.running
    await child.stop()
    assert not child.running


async def test_a_program_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    child = EngineProcess(argv=("/nowhere/vllm",), environment={}, log=tmp_path / "log")
    child.start()
    with pytest.raises(EngineStartFailed, match="nowhere"):
        await child.wait_ready(never, limit=20)
    await child.stop()


async def test_stop_ends_a_whole_group_that_ignores_sigterm(tmp_path: Path) -> None:
    child = engine(tmp_path, STUBBORN)
    child.start()
    members = await pids(tmp_path / "engine.log")
    started = time.monotonic()
    await child.stop()
    await gone(*members)
    assert time.monotonic() - started < 10
    assert not child.running
    await child.stop()  # twice is harmless


async def test_an_orderly_child_gets_its_time(tmp_path: Path) -> None:
    polite = (
        "import signal, sys, time\n"
        "def leave(*_):\n    time.sleep(0.2); print('goodbye', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)\nprint('pids', flush=True)\ntime.sleep(60)"
    )
    child = engine(tmp_path, polite, grace=10)
    child.start()
    await pids(tmp_path / "engine.log")
    await child.stop()
    assert "goodbye" in child.tail()


async def test_what_a_dead_server_leaves_behind_is_killed(tmp_path: Path) -> None:
    child = engine(tmp_path, LEAVING)
    child.start()
    _, worker = await pids(tmp_path / "engine.log")
    assert await child.wait() == 7
    await gone(worker)
    await child.stop()


@pytest.mark.parametrize("killed", ["vLLM", "all of it"])
async def test_sockets_lie_where_only_this_user_gets_and_go_with_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    child = engine(tmp_path, LISTENING)
    child.start()
    (pid,) = await pids(tmp_path / "engine.log")
    (folder,) = (tmp_path / "tmp").iterdir()
    assert [each.name for each in folder.iterdir()] == ["socket"]
    assert folder.stat().st_mode & 0o777 == 0o700
    if killed == "vLLM":
        os.kill(pid, signal.SIGKILL)
        await child.wait()
    else:
        child.kill()
    assert not list((tmp_path / "tmp").iterdir())
    await child.stop()


async def test_a_cancelled_stop_still_finishes(tmp_path: Path) -> None:
    child = engine(tmp_path, STUBBORN)
    child.start()
    members = await pids(tmp_path / "engine.log")
    stopping = asyncio.create_task(child.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await gone(*members)


async def test_nothing_survives_when_the_guardian_is_killed(tmp_path: Path) -> None:
    child = engine(tmp_path, STUBBORN)
    child.start()
    members = await pids(tmp_path / "engine.log")
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    await child.stop()
    await gone(*members)


async def test_nothing_survives_when_we_are_killed(tmp_path: Path) -> None:
    """The agent dies by SIGKILL, without a chance to clean up."""
    script = tmp_path / "child.py"
    script.write_text(STUBBORN)
    log = tmp_path / "engine.log"
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom server.engines.process import EngineProcess\n"
        f"EngineProcess(argv=(sys.executable, {str(script)!r}), environment={{}}, log=Path({str(log)!r}),"
        " grace=0.3).start()\ntime.sleep(60)"
    )
    agent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)  # noqa: ASYNC220 (returns at once)
    try:
        members = await pids(log)
        agent.kill()
        await gone(*members)
    finally:
        agent.kill()
        agent.wait()
