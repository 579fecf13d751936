"""One suite over every implementation of ``registry.ports.Blobs``; below it, what only files can do."""

import io
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from registry.blobs.filesystem import FilesystemBlobs
from registry.blobs.memory import InMemoryBlobs
from registry.digests import Digest, chunks
from registry.errors import BlobCorrupt, BlobNotFound
from registry.ports import Blobs

DATA = b"adapter bytes " * 1000
DIGEST = Digest.of(DATA)
ABSENT = Digest.of(b"never stored")
Damage = Callable[[bytes], None]


class Stage:
    """A store, and a way to replace what it keeps for DIGEST behind its back."""

    def __init__(self, blobs: Blobs, damage: Damage) -> None:
        self.blobs, self.damage = blobs, damage

    def put(self, data: bytes = DATA, *, expect: Digest | None = None) -> tuple[Digest, int]:
        return self.blobs.put(io.BytesIO(data), expect=expect)


@pytest.fixture(params=["memory", "filesystem"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    if request.param == "memory":
        memory = InMemoryBlobs()
        return Stage(memory, lambda data: memory._data.update({DIGEST: data}))

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
