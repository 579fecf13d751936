"""A disk that is full at every place where something is written, and clocks that go backwards.

RLIMIT_FSIZE stands for the disk: writes beyond it fail in the kernel, half-way through a page if need be,
and SQLite's and our own code see what they would see.
"""

import io
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry.blobs.errors import BlobsUnavailable
from registry.blobs.filesystem import FilesystemBlobs
from registry.clock import ManualClock
from registry.digests import Digest
from registry.errors import TenonError
from registry.manifests import Provenance
from registry.names import AdapterName
from registry.routing.errors import RoutingChanged
from registry.store.errors import StoreUnavailable
from tests.support.adapters import tiny_base, tiny_fingerprint, write_adapter
from tests.support.registries import GATE, NAME, World, open_world, route


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_a_blob_that_does_not_fit_leaves_nothing_wherever_it_stops(tmp_path: Path) -> None:
    data = bytes(range(256))
    blobs = FilesystemBlobs(tmp_path / "blobs")
    for size in range(len(data)):
        with pytest.raises(BlobsUnavailable), room_for(size):
            blobs.put(io.BytesIO(data))
        assert files(tmp_path) == set()
    with room_for(len(data)):
        digest, _ = blobs.put(io.BytesIO(data))
    assert blobs.read(digest) == data


@pytest.fixture
def small(tmp_path: Path) -> Iterator[World]:
    made = open_world(tmp_path, blobs=FilesystemBlobs(tmp_path / "blobs"))
    yield made
    made.database.close()


def until_it_fits(world: World, change: Callable[[], object], *, step: int) -> int:
    """How often ``change`` failed, each time with a little more room, before it succeeded."""
    head = world.catalog.snapshot()
    for failures in range(10_000):
        with room_for(failures * step):
            try:
                change()
            except (StoreUnavailable, BlobsUnavailable) as error:
                refusal: TenonError | None = error
            else:
                refusal = None
        if refusal is None:
            return failures
        assert refusal.status == 503
        assert world.catalog.snapshot() == head
        assert not files(world.folder / "blobs" / "incoming")
        if failures % 10 == 0:
            assert world.catalog.verify(blobs=True) == []
    raise AssertionError("it never fits")


def test_a_push_onto_a_full_disk_is_all_or_nothing(small: World) -> None:
    small.push(seed=7)  # fills the first pages of the write-ahead log
    wal = small.folder / "registry.db-wal"
    folder = write_adapter(small.folder / "peft", tiny_base()[0], seed=8)

    def push() -> Digest:
        return small.catalog.push(
            AdapterName("retail_b", "assistant"),
            folder,
            base=small.base,
            fingerprint=tiny_fingerprint(small.base),
            provenance=Provenance(method="upload"),
            actor="test",
        )

    failed = until_it_fits(small, push, step=3989)
    assert failed * 3989 > wal.stat().st_size // 2  # the room really ran out in the middle of a commit
    assert [str(name) for name in small.catalog.adapters()] == ["bank_a/assistant", "retail_b/assistant"]
    assert small.catalog.verify(blobs=True) == []


def test_a_promotion_on_a_full_disk_moves_nothing(small: World) -> None:
    first, second = small.promoted(seed=1), small.evaluated(seed=2)
    promote = lambda: small.catalog.promote(NAME, second, gate=GATE, expect_epoch=1, actor="test")  # noqa: E731
    assert until_it_fits(small, promote, step=8009) > 3
    assert small.catalog.alias(NAME).version == second
    assert small.catalog.rollback(NAME, actor="test").version == first
    assert small.catalog.verify(blobs=True) == []


def test_a_clock_that_goes_backwards_changes_no_order(tmp_path: Path) -> None:
    clock = ManualClock()
    world = open_world(tmp_path, clock=clock)
    policy = world.policy()
    versions: list[Digest] = []
    for seed, jump in enumerate((0.0, -365 * 86400.0, 3600.0, -10.0)):
        clock.advance(jump)
        versions.append(world.promoted(seed=seed))
        world.catalog.publish_routing("bank_a", routes=[route(policy, name=f"r{seed}")], actor="test")
    times = [entry.at for entry in world.catalog.entries(0, 1000)]
    assert times == sorted(times)
    assert [item.version for item in world.catalog.versions(NAME)] == versions
    assert [move.routing.revision for move in world.catalog.routings("bank_a")] == [1, 2, 3, 4]
    assert world.catalog.rollback(NAME, actor="test").version == versions[-2]
    assert world.catalog.verify() == []
    world.database.close()


def test_of_two_publications_at_once_one_wins(small: World) -> None:
    policy = small.policy()
    start = threading.Barrier(4)
    told: list[str] = []

    def publish(name: str) -> None:
        start.wait()
        try:
            small.catalog.publish_routing(
                "bank_a", routes=[route(policy, name=name)], expect_revision=0, actor=name
            )
            told.append(name)
        except RoutingChanged:
            told.append("lost")

    threads = [threading.Thread(target=publish, args=(f"r{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told.count("lost") == 3
    (winner,) = (name for name in told if name != "lost")
    assert [each.name for each in small.catalog.routing("bank_a").routes] == [winner]
    assert small.catalog.verify() == []
