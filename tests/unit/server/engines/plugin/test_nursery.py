"""The nursery with real processes, without vLLM: what a child is given, and that nobody outlives another."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from server.engines.plugin import launcher, nursery
from server.engines.process import EngineProcess

ROOT = Path(__file__).parents[5]

FAMILY = """
import json, multiprocessing, os, sys, time
from server.engines.plugin import nursery

IMPORTED = os.urandom(8).hex()

def report(name):
    with open(os.path.join(sys.argv[1], name), "w") as out:
        json.dump({"pid": os.getpid(), "imported": IMPORTED, "asked": os.environ.get("ASKED"),
                   "gone": os.environ.get("GONE"), "cores": sorted(os.sched_getaffinity(0))}, out)

def worker(lock, status):
    with lock:
        report("worker")
    if status is None:
        time.sleep(120)
    os._exit(status)

def core(lock, status):
    report("core")
    os.environ["ASKED"] = "by the core"
    made = multiprocessing.get_context("spawn").Process(target=worker, args=(lock, status), daemon=True)
    made.start()
    made.join()
    sys.exit(made.exitcode)

if __name__ == "__main__":
    status = None if sys.argv[2] == "stay" else int(sys.argv[2])
    assert nursery.unable(dict(os.environ)) is None
    server = nursery.open_nursery()
    os.environ["ASKED"] = "by the first"
    del os.environ["GONE"]
    context = multiprocessing.get_context("spawn")
    assert context.get_start_method() != "fork"  # or vLLM would close descriptors of others
    lock = context.Lock()
    made = context.Process(target=core, args=(lock, status))
    made.start()
    report("first")
    with open(os.path.join(sys.argv[1], "server"), "w") as out:
        json.dump({"pid": server}, out)
    made.join()
    sys.exit(made.exitcode)
"""
"""As vLLM: the API server starts the core, the core a worker."""
NAMES = ("first", "server", "core", "worker")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "family.py"
    path.write_text(FAMILY)
    return path


def environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "GONE": "once"}


@contextmanager
def started(script: Path, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    family = subprocess.Popen(
        [sys.executable, str(script), str(folder), "stay"],
        env=environment(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield family
    finally:
        with suppress(ProcessLookupError):
            os.killpg(family.pid, signal.SIGKILL)
        family.wait()


def said(folder: Path) -> dict[str, dict[str, object]]:
    return {name: json.loads((folder / name).read_text()) for name in NAMES}


def alive(pid: object) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def until_told(folder: Path) -> dict[str, int]:
    """Other processes write it: look again and again, with a limit."""
    for _ in range(1000):
        try:
            return {name: int(str(facts["pid"])) for name, facts in said(folder).items()}
        except (OSError, ValueError):
            time.sleep(0.02)
    raise AssertionError("the family did not start")


def until_gone(pids: Iterable[int]) -> None:
    left = set(pids)
    for _ in range(1000):
        left = {pid for pid in left if alive(pid)}
        if not left:
            return
        time.sleep(0.02)
    raise AssertionError(f"{left} live on")


def test_all_come_from_one_import_and_each_has_its_parents_environment(script: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "7"], env=environment(), timeout=60, check=False
    )
    facts = said(tmp_path)
    assert done.returncode == 7, "the worker's status came through the core's"
    assert len({facts[name]["imported"] for name in ("first", "core", "worker")}) == 1
    assert facts["core"]["asked"] == "by the first"
    assert facts["worker"]["asked"] == "by the core"
    assert facts["core"]["gone"] is None
    until_gone([int(str(facts["server"]["pid"]))])


@pytest.mark.parametrize("victim", ["first", "server"])
def test_who_is_killed_takes_everyone_along(script: Path, tmp_path: Path, victim: str) -> None:
    """Without a guardian; with one, the whole group is killed anyway."""
    with subprocess.Popen([sys.executable, str(script), str(tmp_path), "stay"], env=environment()) as family:
        pids = until_told(tmp_path)
        os.kill(pids[victim], signal.SIGKILL)
        until_gone(pids.values())
        assert family.wait(10) != 0


def test_a_worker_that_is_killed_ends_the_core_with_its_signal(script: Path, tmp_path: Path) -> None:
    with started(script, tmp_path) as family:
        pids = until_told(tmp_path)
        os.kill(pids["worker"], signal.SIGKILL)
        assert family.wait(20) != 0
        until_gone(pids.values())


def test_below_the_guardian_nobody_outlives_the_agent(script: Path, tmp_path: Path) -> None:
    async def run() -> dict[str, int]:
        process = EngineProcess(
            argv=(sys.executable, str(script), str(tmp_path), "stay"),
            environment=environment(),
            log=tmp_path / "engine.log",
            grace=0.3,
        )
        process.start()
        pids = until_told(tmp_path)
        assert process._child is not None
        assert process._child.stdin is not None
        process._child.stdin.close()  # what the guardian sees when the agent was killed
        await process.wait()
        return pids

    until_gone(asyncio.run(run()).values())


def test_a_process_with_threads_is_not_forked() -> None:
    program = (
        "import threading, time; from server.engines.plugin import nursery\n"
        "print(nursery.unable({}))\n"
        "threading.Thread(target=time.sleep, args=(1,)).start(); print(nursery.unable({}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines() == ["None", "2 threads run after the import"]


def test_an_openmp_that_reads_its_cores_once_is_left_to_vllm() -> None:
    assert "OpenMP" in str(nursery.unable({"LD_PRELOAD": "/opt/intel/lib/libiomp5.so:/lib/libtcmalloc.so"}))


@pytest.mark.parametrize(
    ("value", "cores"),
    [
        ("0", {0}),
        ("0 1 5", {0, 1, 5}),
        ("{0,1,12}", {0, 1, 12}),
        ("", set()),
        ("{0:4}", set()),
        ("cores", set()),
        ("0-3", set()),
    ],
)
def test_cores_are_read_as_vllm_writes_them(value: str, cores: set[int]) -> None:
    assert nursery.cores_of(value) == cores


def test_what_vllm_preloads_into_workers_is_there_from_the_start() -> None:
    given = launcher.prepared({"PATH": "/bin", "LD_PRELOAD": "/opt/own.so"})
    own, openmp = given["LD_PRELOAD"].split(":")
    assert own == "/opt/own.so"
    assert Path(openmp).name.startswith("libgomp")
    assert Path(openmp).is_file()
    assert given["PATH"] == "/bin"


def test_an_openmp_that_was_chosen_stays_the_only_one() -> None:
    chosen = "/opt/intel/lib/libiomp5.so"
    assert launcher.prepared({"LD_PRELOAD": chosen})["LD_PRELOAD"] == chosen


def test_what_a_killed_engine_leaves_behind_lies_in_its_boots_folder(tmp_path: Path) -> None:
    """Nobody tidies up temporary folders; the boot's own goes with the boot."""
    boot, temporary = tmp_path / "b", tmp_path / "t"
    for folder in (boot, temporary):
        folder.mkdir()
    code = (
        "import os, signal; from server.engines.plugin import nursery; nursery.open_nursery(); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    told = {"TENON_GUARD": str(boot / "guard.json"), "TMPDIR": str(temporary)}
    subprocess.run([sys.executable, "-c", code], env=environment() | told, check=False, timeout=60)
    assert list(temporary.iterdir()) == []
    (left,) = boot.iterdir()
    assert left.is_socket()
    assert left.stat().st_mode & 0o077 == 0


def test_a_boots_folder_with_too_long_a_path_is_not_used(tmp_path: Path) -> None:
    boot = tmp_path / ("b" * 100)
    boot.mkdir()
    code = (
        "from server.engines.plugin import nursery; from multiprocessing import forkserver; "
        "nursery.open_nursery(); print(forkserver._forkserver._forkserver_address)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment() | {"TENON_GUARD": str(boot / "guard.json"), "TMPDIR": "/tmp"},
        check=True,
        capture_output=True,
        timeout=60,
        text=True,
    )
    assert done.stdout.startswith("/tmp/")
    assert list(boot.iterdir()) == []
