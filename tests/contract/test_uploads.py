"""Resumable uploads and claims, over every shelf and store."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from registry.blobs.errors import (
    BlobTooLarge,
    TooManyUploads,
    UploadFragmented,
    UploadMismatch,
    UploadMisplaced,
    UploadNotFound,
    UploadOverrun,
)
from registry.blobs.filesystem import FilesystemBlobs
from registry.blobs.memory import InMemoryBlobs, InMemoryShelf
from registry.blobs.s3 import S3Blobs
from registry.blobs.s3_shelf import S3Shelf
from registry.blobs.shelf import FilesystemShelf
from registry.blobs.uploads import PIECE, UploadLimits, Uploads
from registry.digests import Digest
from registry.errors import InvalidInput, InvalidName
from registry.ports import BlobStore, Leftovers, Shelf

DATA = os.urandom(100_000)
DIGEST = Digest.of(DATA)
PAST = datetime(2026, 1, 1, tzinfo=UTC)
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
LIMITS = UploadLimits(max_size=32 << 20, max_open=3, max_pieces=6)
Open = Callable[[], tuple[Shelf, BlobStore]]


@pytest.fixture(params=["memory", "filesystem", "s3"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """The same storage each time, as another process or replica would open it."""
    if request.param == "memory":
        shelf, blobs = InMemoryShelf(), InMemoryBlobs()
        return lambda: (shelf, blobs)
    if request.param == "filesystem":
        return lambda: (FilesystemShelf(tmp_path), FilesystemBlobs(tmp_path))
    place = request.getfixturevalue("s3").place()
    opened = (S3Shelf(place), S3Blobs(place))
    return lambda: opened


@pytest.fixture
def uploads(reopen: Open) -> Uploads:
    return Uploads(*reopen(), limits=LIMITS)


def blobs_of(uploads: Uploads) -> BlobStore:
    return uploads._blobs


def send(
    uploads: Uploads, offset: int, data: bytes, *, digest: Digest = DIGEST, tenant: str = "bank_a"
) -> int:
    return uploads.append(tenant, digest, offset, io.BytesIO(data))


class Broken(io.RawIOBase):
    """Bytes, and then a connection that breaks."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1, /) -> bytes:
        if not self._data:
            raise ConnectionResetError("the client went away")
        step = 65_536 if size < 0 else min(size, 65_536)
        data, self._data = self._data[:step], self._data[step:]
        return data


def broken(data: bytes) -> BinaryIO:
    return cast("BinaryIO", Broken(data))


def test_in_chunks(uploads: Uploads) -> None:
    assert uploads.begin("bank_a", DIGEST, len(DATA)) == 0
    assert send(uploads, 0, DATA[:40_000]) == 40_000
    assert uploads.offset("bank_a", DIGEST).offset == 40_000
    assert uploads.offset("bank_a", DIGEST).size == len(DATA)
    assert not blobs_of(uploads).has(DIGEST)
    assert not uploads.claims.has("bank_a", DIGEST)
    assert send(uploads, 40_000, DATA[40_000:70_000]) == 70_000
    assert send(uploads, 70_000, DATA[70_000:]) == len(DATA)
    assert blobs_of(uploads).read(DIGEST) == DATA
    assert uploads.claims.has("bank_a", DIGEST)
    assert uploads.sweep(before=FUTURE, delete=False) == Leftovers(0, 0)


def test_a_finished_upload_is_gone_and_begins_as_finished(uploads: Uploads) -> None:
    uploads.begin("bank_a", DIGEST, len(DATA))
    send(uploads, 0, DATA)
    with pytest.raises(UploadNotFound):
        uploads.offset("bank_a", DIGEST)
    assert uploads.begin("bank_a", DIGEST, len(DATA)) == len(DATA)
    assert uploads.sweep(before=FUTURE, delete=False) == Leftovers(0, 0)


def test_another_process_goes_on(reopen: Open) -> None:
    first = Uploads(*reopen())
    first.begin("bank_a", DIGEST, len(DATA))
    send(first, 0, DATA[:40_000])
    second = Uploads(*reopen())
    assert second.begin("bank_a", DIGEST, len(DATA)) == 40_000
    send(second, 40_000, DATA[40_000:])
    assert reopen()[1].read(DIGEST) == DATA


@pytest.mark.parametrize("offset", [0, 39_999, 40_001, 100_000, 10**12])
def test_a_wrong_offset_names_the_right_one(uploads: Uploads, offset: int) -> None:
    uploads.begin("bank_a", DIGEST, len(DATA))
    send(uploads, 0, DATA[:40_000])
    with pytest.raises(UploadMisplaced) as raised:
        send(uploads, offset, DATA[offset : offset + 10])
    assert raised.value.facts["offset"] == 40_000
    assert (raised.value.code, raised.value.status) == ("upload_misplaced", 409)
    send(uploads, 40_000, DATA[40_000:])
    assert blobs_of(uploads).read(DIGEST) == DATA


def test_more_bytes_than_announced_are_refused(uploads: Uploads) -> None:
    uploads.begin("bank_a", DIGEST, len(DATA))
    send(uploads, 0, DATA[:40_000])
    with pytest.raises(UploadOverrun):
        send(uploads, 40_000, DATA[40_000:] + b"!")
    assert uploads.offset("bank_a", DIGEST).offset == 40_000
    assert send(uploads, 40_000, DATA[40_000:]) == len(DATA)


def test_a_chunk_that_breaks_off_keeps_what_came(uploads: Uploads) -> None:
    uploads.begin("bank_a", DIGEST, len(DATA))
    with pytest.raises(ConnectionResetError):
        uploads.append("bank_a", DIGEST, 0, broken(DATA[:33_333]))
    assert uploads.begin("bank_a", DIGEST, len(DATA)) == 33_333
    with pytest.raises(ConnectionResetError):
        uploads.append("bank_a", DIGEST, 33_333, broken(b""))
    send(uploads, 33_333, DATA[33_333:])
    assert blobs_of(uploads).read(DIGEST) == DATA


def test_a_chunk_larger_than_a_piece(uploads: Uploads) -> None:
    data = os.urandom(PIECE + 1000)
    digest = Digest.of(data)
    uploads.begin("bank_a", digest, len(data))
    with pytest.raises(ConnectionResetError):
        uploads.append("bank_a", digest, 0, broken(data[: PIECE + 10]))
    assert uploads.offset("bank_a", digest).offset == PIECE + 10
    assert uploads.append("bank_a", digest, PIECE + 10, io.BytesIO(data[PIECE + 10 :])) == len(data)
    assert blobs_of(uploads).read(digest) == data


def test_nothing_of_wrong_bytes_is_kept(uploads: Uploads) -> None:
    uploads.begin("bank_a", DIGEST, len(DATA))
    send(uploads, 0, DATA[:50_000])
    with pytest.raises(UploadMismatch) as raised:
        send(uploads, 50_000, bytes(50_000))
    assert (raised.value.code, raised.value.status) == ("upload_mismatch", 422)
    assert uploads.sweep(before=FUTURE, delete=False) == Leftovers(0, 0)
    assert list(blobs_of(uploads).digests()) == []
    assert not uploads.claims.has("bank_a", DIGEST)
    assert uploads.begin("bank_a", DIGEST, len(DATA)) == 0
    send(uploads, 0, DATA)
    assert blobs_of(uploads).read(DIGEST) == DATA


def test_an_empty_blob_needs_no_chunk(uploads: Uploads) -> None:
    empty = Digest.of(b"")
    assert uploads.begin("bank_a", empty, 0) == 0
    assert blobs_of(uploads).read(empty) == b""
    assert uploads.claims.has("bank_a", empty)
    with pytest.raises(UploadMismatch):
        uploads.begin("bank_a", DIGEST, 0)


def test_an_announced_size_can_be_corrected(uploads: Uploads) -> None:
    uploads.begin("bank_a", DIGEST, 7)
    send(uploads, 0, DATA[:6])
    assert uploads.begin("bank_a", DIGEST, len(DATA)) == 0
    send(uploads, 0, DATA)
    assert blobs_of(uploads).read(DIGEST) == DATA


def test_what_others_have_sent_must_be_sent_again(uploads: Uploads) -> None:
    """Else a digest could be tried out, and then be read."""
    blobs_of(uploads).put(io.BytesIO(DATA))
    uploads.whole("retail_b", DIGEST, io.BytesIO(DATA))
    assert uploads.begin("bank_a", DIGEST, len(DATA)) == 0
    with pytest.raises(UploadNotFound):
        uploads.offset("saas_c", DIGEST)
    send(uploads, 0, DATA[:500])
    assert uploads.begin("saas_c", DIGEST, len(DATA)) == 0
    assert not uploads.claims.has("bank_a", DIGEST)
    send(uploads, 500, DATA[500:])
    assert uploads.claims.has("bank_a", DIGEST)


def test_what_was_claimed_and_collected_is_sent_again(uploads: Uploads) -> None:
    uploads.whole("bank_a", DIGEST, io.BytesIO(DATA))
    assert blobs_of(uploads).delete_for_ever(DIGEST, unless_renewed_since=FUTURE)
    assert uploads.begin("bank_a", DIGEST, len(DATA)) == 0


def test_in_one_go(uploads: Uploads) -> None:
    assert uploads.whole("bank_a", DIGEST, io.BytesIO(DATA)) == len(DATA)
    assert blobs_of(uploads).read(DIGEST) == DATA
    assert [(claim.tenant, claim.digest) for claim in uploads.claims.all()] == [("bank_a", DIGEST)]
    other = Digest.of(b"other")
    with pytest.raises(UploadMismatch):
        uploads.whole("bank_a", other, io.BytesIO(b"else"))
    with pytest.raises(BlobTooLarge):
        uploads.whole("bank_a", other, io.BytesIO(bytes(LIMITS.max_size + 1)))
    with pytest.raises(ConnectionResetError):
        uploads.whole("bank_a", other, broken(b"oth"))
    assert list(blobs_of(uploads).digests()) == [DIGEST]
    assert not uploads.claims.has("bank_a", other)


def test_claims_can_be_taken_back(uploads: Uploads) -> None:
    uploads.whole("bank_a", DIGEST, io.BytesIO(DATA))
    (claim,) = uploads.claims.all()
    uploads.claims.remove(claim)
    assert not uploads.claims.has("bank_a", DIGEST)
    assert list(uploads.claims.all()) == []


def test_limits(uploads: Uploads) -> None:
    with pytest.raises(BlobTooLarge):
        uploads.begin("bank_a", DIGEST, LIMITS.max_size + 1)
    with pytest.raises(InvalidInput):
        uploads.begin("bank_a", DIGEST, -1)
    for number in range(LIMITS.max_open):
        uploads.begin("bank_a", Digest.of(bytes([number])), 1)
    with pytest.raises(TooManyUploads):
        uploads.begin("bank_a", DIGEST, len(DATA))
    assert uploads.begin("bank_a", Digest.of(b"\0"), 1) == 0  # one that is under way already
    assert uploads.begin("retail_b", DIGEST, len(DATA)) == 0
    send(uploads, 0, b"\0", digest=Digest.of(b"\0"))
    assert uploads.begin("bank_a", DIGEST, len(DATA)) == 0


def test_crumbs_are_refused(uploads: Uploads) -> None:
    uploads.begin("bank_a", DIGEST, len(DATA))
    for number in range(LIMITS.max_pieces):
        send(uploads, number, DATA[number : number + 1])
    with pytest.raises(UploadFragmented):
        send(uploads, LIMITS.max_pieces, DATA[LIMITS.max_pieces :])
    assert uploads.begin("bank_a", DIGEST, len(DATA)) == 0


@pytest.mark.parametrize("tenant", ["..", "a/b", "", "A", "../x", "a" * 64, "a\0"])
def test_no_name_leads_elsewhere(uploads: Uploads, tenant: str) -> None:
    for call in (
        lambda: uploads.begin(tenant, DIGEST, 5),
        lambda: uploads.offset(tenant, DIGEST),
        lambda: uploads.append(tenant, DIGEST, 0, io.BytesIO(DATA)),
        lambda: uploads.whole(tenant, DIGEST, io.BytesIO(DATA)),
        lambda: uploads.claims.has(tenant, DIGEST),
        lambda: uploads.claims.add(tenant, DIGEST),
    ):
        with pytest.raises(InvalidName):
            call()
    assert list(blobs_of(uploads).digests()) == []


def test_two_at_once_are_one(uploads: Uploads) -> None:
    """The same chunks from two connections: each byte is taken once, whoever brings it."""
    chunk = 25_000
    uploads.begin("bank_a", DIGEST, len(DATA))
    start = threading.Barrier(2)
    faults: list[Exception] = []

    def run() -> None:
        start.wait()
        offset = 0
        while offset < len(DATA):
            try:
                offset = send(uploads, offset, DATA[offset : offset + chunk])
            except UploadMisplaced as error:
                offset = cast("int", error.facts["offset"])
            except UploadNotFound:
                return  # the other one has finished it
            except Exception as error:
                faults.append(error)
                return

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert blobs_of(uploads).read(DIGEST) == DATA
    assert uploads.sweep(before=FUTURE, delete=False) == Leftovers(0, 0)


def test_abandoned_ones_expire(uploads: Uploads) -> None:
    uploads.begin("bank_a", DIGEST, len(DATA))
    send(uploads, 0, DATA[:1000])
    assert uploads.sweep(before=PAST, delete=True) == Leftovers(0, 0)
    assert uploads.sweep(before=FUTURE, delete=False) == Leftovers(1, 1000)
    assert uploads.offset("bank_a", DIGEST).offset == 1000
    assert uploads.sweep(before=FUTURE, delete=True) == Leftovers(1, 1000)
    with pytest.raises(UploadNotFound):
        uploads.offset("bank_a", DIGEST)
    with pytest.raises(UploadNotFound):
        send(uploads, 1000, DATA[1000:])
    assert uploads.begin("bank_a", DIGEST, len(DATA)) == 0


def test_shelves(reopen: Open) -> None:
    shelf, _ = reopen()
    assert shelf.add("uploads/a/b", b"one")
    assert not shelf.add("uploads/a/b", b"two")
    assert shelf.add("uploads/ab/c", b"")
    assert shelf.get("uploads/a/b") == b"one"
    assert shelf.has("uploads/ab/c")
    assert not shelf.has("uploads/a")
    with pytest.raises(KeyError):
        shelf.get("uploads/a/c")
    assert [(piece.name, piece.size) for piece in shelf.list("uploads")] == [
        ("uploads/a/b", 3),
        ("uploads/ab/c", 0),
    ]
    assert [piece.name for piece in shelf.list("uploads/a")] == ["uploads/a/b"]
    (piece,) = shelf.list("uploads/a")
    assert abs(piece.at - datetime.now(UTC)) < timedelta(seconds=30)
    shelf.remove("uploads/a/b")
    shelf.remove("uploads/a/b")
    assert list(shelf.list("uploads/a")) == []
    assert shelf.add("uploads/a/b", b"three")


# ----------------------------------------------------------------------------------------------- processes


PROGRAM = """
import sys, time
from pathlib import Path
from registry.blobs.filesystem import FilesystemBlobs
from registry.blobs.shelf import FilesystemShelf
from registry.blobs.uploads import Uploads
from registry.digests import Digest

root, digest, size = Path(sys.argv[1]), Digest(sys.argv[2]), int(sys.argv[3])
uploads = Uploads(FilesystemShelf(root), FilesystemBlobs(root))
offset = uploads.begin("bank_a", digest, size)
print(offset, flush=True)
print(uploads.append("bank_a", digest, offset, sys.stdin.buffer), flush=True)
"""


def begin(root: Path, data: bytes) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root), Digest.of(data), str(len(data))],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def told(process: "subprocess.Popen[bytes]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("half", [0, 100_000])
def test_kill_9_in_the_middle_of_a_chunk(tmp_path: Path, half: int) -> None:
    """The pieces that were complete are there, what was not is gone, and the end is byte-identical."""
    data = os.urandom(PIECE + 300_000)
    with begin(tmp_path, data) as process:
        assert told(process) == 0
        assert process.stdin is not None
        process.stdin.write(data[: PIECE + half])
        process.stdin.flush()
        folder = tmp_path / "uploads" / "bank_a" / Digest.of(data).hex
        eventually((folder / f"{0:015d}").exists)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with begin(tmp_path, data) as process:
        offset = told(process)
        assert offset == PIECE
        assert process.stdin is not None
        process.stdin.write(data[offset:])
        process.stdin.close()
        assert told(process) == len(data)
    assert FilesystemBlobs(tmp_path).read(Digest.of(data)) == data


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_disk_that_fails_keeps_no_half_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    uploads = Uploads(FilesystemShelf(tmp_path), FilesystemBlobs(tmp_path))
    uploads.begin("bank_a", DIGEST, len(DATA))

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(OSError, match="no space"):
            send(uploads, 0, DATA)
    assert uploads.offset("bank_a", DIGEST).offset == 0
    assert list(files(tmp_path)) == [f"size-{len(DATA)}"]


def test_halves_of_dead_writers_are_swept(tmp_path: Path) -> None:
    uploads = Uploads(FilesystemShelf(tmp_path), FilesystemBlobs(tmp_path))
    uploads.begin("bank_a", DIGEST, len(DATA))
    half = tmp_path / "uploads" / "bank_a" / DIGEST.hex / ".0123"
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    assert uploads.offset("bank_a", DIGEST).offset == 0
    assert uploads.sweep(before=PAST, delete=True) == Leftovers(1, 4)
    assert list(files(tmp_path)) == [f"size-{len(DATA)}"]


def files(root: Path) -> Iterator[str]:
    return (path.name for path in root.rglob("*") if path.is_file())
