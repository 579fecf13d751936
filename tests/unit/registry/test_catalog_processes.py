"""Several processes on one registry, and one that is killed in the middle of its work."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from registry.digests import Digest
from tests.support.registries import NAME, World

ROOT = Path(__file__).parents[3]
PRELUDE = """
import sys
from pathlib import Path
from registry.blobs.memory import InMemoryBlobs
from registry.catalog.local import LocalCatalog
from registry.clock import SystemClock
from registry.digests import Digest
from registry.errors import AliasMoved
from registry.models import Tenant
from registry.store.database import Database
from tests.support.registries import GATE, NAME, signer
catalog = LocalCatalog(
    database=Database(Path(sys.argv[1]), busy_timeout=30), blobs=InMemoryBlobs(), signer=signer("log"),
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


def _start(world: World, script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, str(world.file), *arguments],
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


def test_two_processes_promote_with_the_same_epoch_and_one_wins(world: World) -> None:
    world.promoted(seed=0)
    rivals = [world.evaluated(seed=seed) for seed in (1, 2)]
    processes = [_start(world, PROMOTE, version) for version in rivals]
    assert [_line(process) for process in processes] == ["ready", "ready"]
    for process in processes:
        _go(process)
    outcomes = {_line(process): version for process, version in zip(processes, rivals, strict=True)}
    assert [_close(process) for process in processes] == [0, 0]
    assert set(outcomes) == {"won", "lost"}
    (alias,) = world.catalog.snapshot().aliases
    assert (alias.version, alias.epoch) == (outcomes["won"], 2)
    assert [move.version for move in world.catalog.history(NAME)][1:] == [outcomes["won"]]
    assert world.catalog.verify() == []


def test_writers_in_several_processes_lose_nothing(world: World) -> None:
    before, count = world.catalog.snapshot().size, 15
    processes = [_start(world, CREATE, name, str(count)) for name in ("a", "b")]
    assert [_line(process) for process in processes] == ["ready", "ready"]
    for process in processes:
        _go(process)
    for process in processes:
        assert [_line(process) for _ in range(count)] == [str(number) for number in range(count)]
        assert _close(process) == 0
    assert world.catalog.snapshot().size == before + 2 * count
    assert world.catalog.verify() == []


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_killed_writer_leaves_whole_changes_only(world: World, after: int) -> None:
    before = len(world.catalog.tenants())
    process = _start(world, CREATE, "a", "0")
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
    created = len(world.catalog.tenants()) - before
    assert created in (acknowledged, acknowledged + 1)  # it may have died between the commit and saying so
    assert world.catalog.verify() == []
    world.promoted()
    assert world.catalog.verify() == []


def test_a_process_that_dies_while_it_pushes_can_push_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blobs first, rows last: what is left behind is bytes that nothing names."""
    size = world.catalog.snapshot().size
    put = world.blobs.put
    stored: list[tuple[Digest, int]] = []

    def put_and_die(stream: object, **options: object) -> tuple[Digest, int]:
        if len(stored) == 2:
            raise KeyboardInterrupt
        stored.append(put(stream, **options))  # type: ignore[arg-type]
        return stored[-1]

    with monkeypatch.context() as patched:
        patched.setattr(world.blobs, "put", put_and_die)
        with pytest.raises(KeyboardInterrupt):
            world.push()
    assert world.catalog.snapshot().size == size
    assert world.catalog.versions(NAME) == ()
    version = world.push()
    assert [item.version for item in world.catalog.versions(NAME)] == [version]
    assert world.catalog.verify(blobs=True) == []
