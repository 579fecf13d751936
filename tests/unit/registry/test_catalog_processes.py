"""Several processes on one registry, and one that is killed in the middle of its work."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from registry.blobs.filesystem import FilesystemBlobs
from registry.digests import Digest
from tests.support.registries import GATE, NAME, World, open_world

ROOT = Path(__file__).parents[3]
PRELUDE = """
import sys
from registry.blobs.memory import InMemoryBlobs
from registry.catalog.local.catalog import LocalCatalog
from registry.clock import SystemClock
from registry.digests import Digest
from registry.errors import AliasMoved
from registry.models import Tenant
from tests.support.registries import GATE, NAME, signer
from tests.support.stores import connect
catalog = LocalCatalog(
    database=connect(sys.argv[1], busy_timeout=30), blobs=InMemoryBlobs(), signer=signer("log"),
    clock=SystemClock(),
)
print("ready", flush=True)
sys.stdin.readline()
"""
PROMOTE = """
try:
    catalog.promote(NAME, Digest(sys.argv[2]), gate=GATE, expect_epoch=1, actor="process")
    print("won", flush=True)
except AliasMoved:
    print("lost", flush=True)
"""
CREATE = """
for number in range(1_000_000):
    catalog.create_tenant(Tenant(id=f"t-{sys.argv[2]}-{number}", display_name="x"), actor="process")
    print(number, flush=True)
    if number + 1 == int(sys.argv[3]):
        break
"""


DIE = """
import os, signal
from sqlalchemy import event
from sqlalchemy.engine import Engine
left = int(sys.argv[3])
def die(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
event.listen(Engine, "before_cursor_execute", die)
event.listen(Engine, "commit", lambda connection: os.kill(os.getpid(), signal.SIGKILL))
"""
OPEN = """
from pathlib import Path
from registry.blobs.filesystem import FilesystemBlobs
from tests.support.registries import open_world
folder = Path(sys.argv[2])
world = open_world(folder, store=sys.argv[1], filled=True, blobs=FilesystemBlobs(folder / "blobs"))
"""


def _start(world: World, script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, world.address, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _close(process: subprocess.Popen[str]) -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    code = process.wait(timeout=60)
    process.stdout.close()
    return code


def test_two_processes_promote_with_the_same_epoch_and_one_wins(anywhere: World) -> None:
    anywhere.promoted(seed=0)
    rivals = [anywhere.evaluated(seed=seed) for seed in (1, 2)]
    processes = [_start(anywhere, PROMOTE, version) for version in rivals]
    assert [_line(process) for process in processes] == ["ready", "ready"]
    for process in processes:
        _go(process)
    outcomes = {_line(process): version for process, version in zip(processes, rivals, strict=True)}
    assert [_close(process) for process in processes] == [0, 0]
    assert set(outcomes) == {"won", "lost"}
    (alias,) = anywhere.catalog.snapshot().aliases
    assert (alias.version, alias.epoch) == (outcomes["won"], 2)
    assert [move.version for move in anywhere.catalog.history(NAME)][1:] == [outcomes["won"]]
    assert anywhere.catalog.verify() == []


def test_writers_in_several_processes_lose_nothing(anywhere: World) -> None:
    before, count = anywhere.catalog.snapshot().size, 15
    processes = [_start(anywhere, CREATE, name, str(count)) for name in ("a", "b")]
    assert [_line(process) for process in processes] == ["ready", "ready"]
    for process in processes:
        _go(process)
    for process in processes:
        assert [_line(process) for _ in range(count)] == [str(number) for number in range(count)]
        assert _close(process) == 0
    assert anywhere.catalog.snapshot().size == before + 2 * count
    assert anywhere.catalog.verify() == []


@pytest.mark.parametrize("after", [1, 9])
def test_a_killed_writer_leaves_whole_changes_only(anywhere: World, after: int) -> None:
    before = len(anywhere.catalog.tenants())
    process = _start(anywhere, CREATE, "a", "0")
    assert _line(process) == "ready"
    _go(process)
    acknowledged = 0
    while acknowledged < after:
        acknowledged = int(_line(process)) + 1
    os.kill(process.pid, signal.SIGKILL)
    assert process.stdout is not None
    rest = process.stdout.read().split()  # said before it died
    acknowledged = max([acknowledged, *(int(line) + 1 for line in rest)])
    assert _close(process) == -signal.SIGKILL
    created = len(anywhere.catalog.tenants()) - before
    assert created in (acknowledged, acknowledged + 1)  # it may have died between the commit and saying so
    assert anywhere.catalog.verify() == []
    anywhere.promoted()
    assert anywhere.catalog.verify() == []


@pytest.mark.parametrize("statement", [9, 1000])
def test_a_promotion_that_is_killed_did_not_happen(anywhere: World, statement: int) -> None:
    """Before any of its statements, or before the commit: the alias and the log are as they were."""
    anywhere.promoted(seed=0)
    rival = anywhere.evaluated(seed=1)
    before = anywhere.catalog.snapshot()
    process = _start(anywhere, DIE + PROMOTE, rival, str(statement))
    assert _line(process) == "ready"
    _go(process)
    assert _close(process) == -signal.SIGKILL
    assert anywhere.catalog.snapshot() == before
    assert anywhere.catalog.verify() == []
    anywhere.catalog.promote(NAME, rival, gate=GATE, expect_epoch=1, actor="test")
    assert anywhere.catalog.alias(NAME).version == rival
    assert anywhere.catalog.verify() == []


@pytest.mark.parametrize("statement", [12, 1000])
def test_a_push_that_is_killed_can_be_made_again(store: str, tmp_path: Path, statement: int) -> None:
    """Its bytes may lie there, and nothing names them."""
    world = open_world(tmp_path, store=store, blobs=FilesystemBlobs(tmp_path / "blobs"))
    before = world.catalog.snapshot()
    process = _start(world, OPEN + DIE + "world.push()", str(tmp_path), str(statement))
    assert _line(process) == "ready"
    _go(process)
    assert _close(process) == -signal.SIGKILL
    assert statement < 1000 or list((tmp_path / "blobs").rglob("*"))
    assert world.catalog.snapshot() == before
    assert world.catalog.versions(NAME) == ()
    world.push()
    assert world.catalog.verify(blobs=True) == []
    world.database.close()


def test_a_process_that_dies_while_it_pushes_can_push_again(
    anywhere: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blobs first, rows last: what is left behind is bytes that nothing names."""
    size = anywhere.catalog.snapshot().size
    put = anywhere.blobs.put
    stored: list[tuple[Digest, int]] = []

    def put_and_die(stream: object, **options: object) -> tuple[Digest, int]:
        if len(stored) == 2:
            raise KeyboardInterrupt
        stored.append(put(stream, **options))  # type: ignore[arg-type]
        return stored[-1]

    with monkeypatch.context() as patched:
        patched.setattr(anywhere.blobs, "put", put_and_die)
        with pytest.raises(KeyboardInterrupt):
            anywhere.push()
    assert anywhere.catalog.snapshot().size == size
    assert anywhere.catalog.versions(NAME) == ()
    version = anywhere.push()
    assert [item.version for item in anywhere.catalog.versions(NAME)] == [version]
    assert anywhere.catalog.verify(blobs=True) == []
