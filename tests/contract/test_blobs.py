"""One suite over every implementation of ``registry.ports.Blobs``; below it, what only files can do."""

import errno
import fcntl
import io
import os
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from registry.blobs.errors import BlobsUnavailable
from registry.blobs.filesystem import FilesystemBlobs
from registry.blobs.memory import InMemoryBlobs
from registry.blobs.s3 import S3Blobs
from registry.clock import ManualClock
from registry.digests import Digest, chunks
from registry.errors import BlobCorrupt, BlobNotFound
from registry.ports import BlobStore, Leftovers
from tests.support.s3 import S3Server, aged, raw

DATA = b"adapter bytes " * 1000
DIGEST = Digest.of(DATA)
PAST = datetime(2026, 1, 1, tzinfo=UTC)
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
ABSENT = Digest.of(b"never stored")
Damage = Callable[[bytes], None]


class Stage:
    """A store, and a way to replace what it keeps for DIGEST behind its back."""

    def __init__(self, blobs: BlobStore, damage: Damage) -> None:
        self.blobs, self.damage = blobs, damage

    def put(self, data: bytes = DATA, *, expect: Digest | None = None) -> tuple[Digest, int]:
        return self.blobs.put(io.BytesIO(data), expect=expect)


@pytest.fixture(params=["memory", "filesystem", "s3"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    if request.param == "memory":
        memory = InMemoryBlobs()
        return Stage(memory, lambda data: memory._data.update({DIGEST: data}))
    if request.param == "s3":
        place = request.getfixturevalue("s3").place()
        key = f"{place.prefix}sha256/{DIGEST.hex[:2]}/{DIGEST.hex}"

        def overwrite(data: bytes) -> None:
            raw(place).put_object(Bucket=place.bucket, Key=key, Body=data)

        return Stage(S3Blobs(place), overwrite)

    def damage(data: bytes) -> None:
        path = tmp_path / "blobs" / "sha256" / DIGEST.hex[:2] / DIGEST.hex
        path.unlink()
        path.write_bytes(data)

    return Stage(FilesystemBlobs(tmp_path / "blobs"), damage)


class Broken(io.RawIOBase):
    """A stream that fails half way, as an upload does."""

    def __init__(self) -> None:
        self._left = 2

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0 or size < 0:
            raise ConnectionResetError("the client went away")
        return b"half"


def broken() -> BinaryIO:
    return Broken()  # type: ignore[return-value]  # typeshed: RawIOBase is no BinaryIO, and it reads like one


def test_what_is_put_can_be_read(stage: Stage) -> None:
    assert stage.put() == (DIGEST, len(DATA))
    assert stage.blobs.has(DIGEST)
    assert stage.blobs.read(DIGEST) == DATA
    with stage.blobs.open(DIGEST) as stream:
        assert stream.read() == DATA
        assert stream.read() == b""


def test_an_empty_blob(stage: Stage) -> None:
    digest, size = stage.put(b"")
    assert (digest, size) == (Digest.of(b""), 0)
    with stage.blobs.open(digest) as stream:
        assert stream.read() == b"" == stage.blobs.read(digest)


def test_only_the_rest_of_a_stream_is_stored(stage: Stage) -> None:
    stream = io.BytesIO(b"skip" + DATA)
    stream.seek(4)
    assert stage.blobs.put(stream) == (DIGEST, len(DATA))


def test_a_new_store_is_empty(stage: Stage) -> None:
    assert list(stage.blobs.digests()) == []
    assert not stage.blobs.has(ABSENT)


def test_absent_blobs(stage: Stage) -> None:
    stage.put()
    with pytest.raises(BlobNotFound):
        stage.blobs.read(ABSENT)
    with pytest.raises(BlobNotFound):
        stage.blobs.open(ABSENT)


def test_storing_twice_is_harmless(stage: Stage) -> None:
    assert stage.put() == stage.put()
    assert list(stage.blobs.digests()) == [DIGEST]


def test_digests_come_in_order(stage: Stage) -> None:
    stored = [stage.put(bytes([number]))[0] for number in range(20)]
    assert list(stage.blobs.digests()) == sorted(stored)


def test_unexpected_bytes_leave_nothing(stage: Stage) -> None:
    with pytest.raises(BlobCorrupt):
        stage.put(DATA + b"!", expect=DIGEST)
    assert list(stage.blobs.digests()) == []
    assert stage.put(DATA, expect=DIGEST) == (DIGEST, len(DATA))


def test_an_upload_that_breaks_off_leaves_nothing(stage: Stage) -> None:
    with pytest.raises(ConnectionResetError):
        stage.blobs.put(broken())
    assert list(stage.blobs.digests()) == []


@pytest.mark.parametrize("damaged", [DATA[:-1], DATA + b"!", b"", b"X" + DATA[1:], DATA[:-1] + b"X"])
def test_damage_is_noticed_by_every_way_of_reading(stage: Stage, damaged: bytes) -> None:
    stage.put()
    stage.damage(damaged)
    with pytest.raises(BlobCorrupt):
        stage.blobs.read(DIGEST)
    with stage.blobs.open(DIGEST) as stream, pytest.raises(BlobCorrupt):
        list(chunks(stream, 997))
    with stage.blobs.open(DIGEST) as stream, pytest.raises(BlobCorrupt):
        stream.read()


def test_a_reader_that_knows_the_size_and_stops_there_notices_too(stage: Stage) -> None:
    stage.put()
    stage.damage(DATA[:-1] + b"X")
    with stage.blobs.open(DIGEST) as stream, pytest.raises(BlobCorrupt):
        stream.read(len(DATA))


def test_damage_heals_by_storing_again(stage: Stage) -> None:
    stage.put()
    stage.damage(b"damaged")
    stage.put()
    assert stage.blobs.read(DIGEST) == DATA


def test_many_writers_of_the_same_bytes(stage: Stage) -> None:
    start = threading.Barrier(8)
    results: list[tuple[Digest, int]] = []

    def write() -> None:
        start.wait()
        results.append(stage.put())

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(DIGEST, len(DATA))] * 8
    assert list(stage.blobs.digests()) == [DIGEST]
    assert stage.blobs.read(DIGEST) == DATA


LARGE = bytes(range(256)) * (9 << 12)
"""9 MiB: more than one part of a multipart upload."""


def test_a_large_blob(stage: Stage) -> None:
    digest = Digest.of(LARGE)
    assert stage.put(LARGE) == stage.put(LARGE, expect=digest) == (digest, len(LARGE))
    assert stage.blobs.read(digest) == LARGE
    with pytest.raises(BlobCorrupt):
        stage.put(LARGE + b"!", expect=digest)
    with pytest.raises(BlobCorrupt):
        stage.put(LARGE + b"!", expect=DIGEST)
    assert list(stage.blobs.digests()) == [digest]
    assert stage.blobs.leftovers(before=FUTURE, delete=False) == Leftovers(0, 0)


def test_what_is_stored_is_known_with_its_size_and_age(stage: Stage) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)  # S3 counts whole seconds
    stage.put()
    stage.put(b"other")
    found = stage.blobs.stat(DIGEST)
    assert (found.digest, found.size) == (DIGEST, len(DATA))
    assert before <= found.renewed_at <= datetime.now(UTC)
    assert [(item.digest, item.size) for item in stage.blobs.stored()] == sorted(
        [(DIGEST, len(DATA)), (Digest.of(b"other"), 5)]
    )
    with pytest.raises(BlobNotFound):
        stage.blobs.stat(ABSENT)


@pytest.mark.parametrize(
    ("start", "size"), [(0, 5), (3, 7), (0, len(DATA)), (len(DATA) - 2, 9), (len(DATA), 1), (5, 0)]
)
def test_a_part_of_a_blob(stage: Stage, start: int, size: int) -> None:
    stage.put()
    with stage.blobs.open_unchecked(DIGEST, start=start, size=size) as stream:
        assert stream.read() == DATA[start : start + size]


def test_a_part_of_what_is_not_there(stage: Stage) -> None:
    with pytest.raises(BlobNotFound):
        stage.blobs.open_unchecked(ABSENT, start=0, size=1)


def test_an_old_blob_is_deleted_and_a_young_one_is_not(stage: Stage) -> None:
    stage.put()
    stage.put(b"other")
    assert not stage.blobs.delete_for_ever(DIGEST, unless_renewed_since=PAST)
    assert stage.blobs.read(DIGEST) == DATA
    assert stage.blobs.delete_for_ever(DIGEST, unless_renewed_since=FUTURE)
    assert not stage.blobs.has(DIGEST)
    assert not stage.blobs.delete_for_ever(DIGEST, unless_renewed_since=FUTURE)
    assert not stage.blobs.delete_for_ever(ABSENT, unless_renewed_since=FUTURE)
    assert list(stage.blobs.digests()) == [Digest.of(b"other")]
    assert stage.put() == (DIGEST, len(DATA))


def test_only_what_is_there_can_be_renewed(stage: Stage) -> None:
    assert not stage.blobs.renew(DIGEST)
    stage.put()
    assert stage.blobs.renew(DIGEST)
    assert stage.blobs.read(DIGEST) == DATA


@pytest.mark.parametrize("renew", ["put", "renew"])
def test_putting_again_or_renewing_makes_it_young(tmp_path: Path, s3: S3Server, renew: str) -> None:
    clock = ManualClock(datetime.now(UTC) - timedelta(days=2))
    memory = InMemoryBlobs(clock)
    files = FilesystemBlobs(tmp_path)
    place = s3.place()
    stores: list[BlobStore] = [memory, files, S3Blobs(place, renew_after=0)]
    for store in stores:
        store.put(io.BytesIO(DATA))
    clock.advance(3 * 86400)
    path = next(file for file in tmp_path.rglob(DIGEST.hex))
    os.utime(path, (0, 0))
    aged(place, f"sha256/{DIGEST.hex[:2]}/{DIGEST.hex}")
    for store in stores[1:]:
        assert store.stat(DIGEST).renewed_at < PAST
    recently = datetime.now(UTC) - timedelta(seconds=2)
    for store in stores:
        if renew == "put":
            store.put(io.BytesIO(DATA))
        else:
            assert store.renew(DIGEST)
        assert store.stat(DIGEST).renewed_at >= recently
        assert not store.delete_for_ever(DIGEST, unless_renewed_since=recently)
        assert store.read(DIGEST) == DATA


# ----------------------------------------------------------------------------------------------- files only


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


def put(root: Path) -> Path:
    FilesystemBlobs(root).put(io.BytesIO(DATA))
    return root / "sha256" / DIGEST.hex[:2] / DIGEST.hex


def test_a_blob_is_one_read_only_file(root: Path) -> None:
    path = put(root)
    assert path.read_bytes() == DATA
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert [file for file in root.rglob("*") if file.is_file()] == [path]


def test_nothing_is_written_before_the_first_put(root: Path) -> None:
    blobs = FilesystemBlobs(root)
    assert not blobs.has(DIGEST)
    assert not root.exists()


def test_another_process_finds_it(root: Path) -> None:
    put(root)
    assert FilesystemBlobs(root).read(DIGEST) == DATA


@pytest.mark.parametrize("call", ["fsync", "rename", "fchmod"])
def test_a_disk_that_fails_leaves_no_blob(root: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    put(root).unlink()

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(OSError, match="no space"):
            put(root)
    assert list(FilesystemBlobs(root).digests()) == []
    assert list((root / "incoming").iterdir()) == []


def test_the_file_is_on_disk_before_it_has_its_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "fchmod", "rename"):
        real = getattr(os, name)

        def spy(
            *args: object, _real: Callable[..., None] = real, _name: str = name, **kwargs: object
        ) -> None:
            calls.append(_name)
            _real(*args, **kwargs)

        monkeypatch.setattr(os, name, spy)
    put(root)
    calls.clear()
    put(root)
    assert calls == ["fsync", "fchmod", "rename", "fsync"]


def test_a_disk_that_gives_back_other_bytes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.pwrite(descriptor, b"flipped", 0)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(BlobCorrupt, match="did not give back"):
        put(root)
    assert list(FilesystemBlobs(root).digests()) == []


def test_what_a_crash_left_is_never_a_blob(root: Path) -> None:
    path = put(root)
    (root / "incoming" / DIGEST.hex).write_bytes(b"half")
    (path.parent / "README").write_bytes(b"")
    (path.parent / (DIGEST.hex + ".tmp")).write_bytes(b"")
    (root / "sha256" / "zz").mkdir()
    (root / "sha256" / "00").write_bytes(b"a file, not a folder")
    assert list(FilesystemBlobs(root).digests()) == [DIGEST]


def test_links_are_not_followed_when_reading(root: Path, tmp_path: Path) -> None:
    path = put(root)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    blobs = FilesystemBlobs(root)
    assert not blobs.has(DIGEST)
    assert list(blobs.digests()) == []
    for read in (blobs.read, blobs.open):
        with pytest.raises(BlobCorrupt, match="not a regular file"):
            read(DIGEST)


def test_links_are_not_followed_when_writing(root: Path, tmp_path: Path) -> None:
    path = put(root)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path.unlink()
    path.symlink_to(victim)
    put(root)
    assert victim.read_bytes() == b"precious"
    assert not path.is_symlink()
    path.unlink()
    path.parent.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path.parent.symlink_to(elsewhere)
    with pytest.raises(OSError, match="Not a directory"):
        put(root)
    assert list(elsewhere.iterdir()) == []
    with pytest.raises(BlobCorrupt):
        FilesystemBlobs(root).read(DIGEST)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_does_not_block(root: Path, make: Callable[[Path], None]) -> None:
    path = put(root)
    path.unlink()
    make(path)
    assert not FilesystemBlobs(root).has(DIGEST)
    with pytest.raises(BlobCorrupt):
        FilesystemBlobs(root).read(DIGEST)


def test_no_descriptor_stays_open(root: Path) -> None:
    put(root)
    blobs = FilesystemBlobs(root)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (counting, not walking)
    for _ in range(3):
        put(root)
        blobs.read(DIGEST)
        blobs.has(ABSENT)
        list(blobs.digests())
        blobs.open(DIGEST).close()
        with pytest.raises(BlobNotFound):
            blobs.open(ABSENT)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_what_a_crash_left_is_found_and_removed(root: Path) -> None:
    put(root)
    half = root / "incoming" / "00"
    half.write_bytes(b"half")
    blobs = FilesystemBlobs(root)
    assert blobs.leftovers(before=PAST, delete=True) == Leftovers(0, 0)
    assert blobs.leftovers(before=FUTURE, delete=False) == Leftovers(1, 4)
    assert blobs.leftovers(before=FUTURE, delete=True) == Leftovers(1, 4)
    assert not half.exists()
    assert blobs.read(DIGEST) == DATA


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_full_disk_has_a_name(root: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(BlobsUnavailable, match="disk"):
            put(root)
    assert list(FilesystemBlobs(root).digests()) == []
    put(root)


def test_a_deletion_waits_for_a_put_of_the_same_shard(root: Path) -> None:
    """Whoever puts holds the shard: the collector must not look at the age before and delete after."""
    path = put(root)
    os.utime(path, (0, 0))
    shard = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(shard, fcntl.LOCK_SH)  # as a put does around its rename
    removed: list[bool] = []
    collector = threading.Thread(
        target=lambda: removed.append(
            FilesystemBlobs(root).delete_for_ever(DIGEST, unless_renewed_since=PAST)
        )
    )
    collector.start()
    collector.join(0.1)
    assert collector.is_alive()
    os.utime(path)
    os.close(shard)
    collector.join()
    assert removed == [False]
    assert FilesystemBlobs(root).read(DIGEST) == DATA
