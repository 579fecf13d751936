"""Records in Parquet: each once, whole, and nothing lost when the shipping process is killed."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry.blobs.s3_shelf import S3Shelf
from registry.blobs.shelf import FilesystemShelf
from registry.clock import ManualClock
from registry.digests import Digest
from registry.errors import RecordChainForked, RecordCorrupt
from registry.ports import Piece, Shelf
from registry.shipping import genesis
from registry.signing.keys import Signer
from router.groups import Group
from router.limits import Cadence
from router.records import Heads, Record, RecordLog, Trace
from router.records.log import durable
from router.records.segments import Segments
from router.testing import FakeHeads
from server.errors import ShippingBusy
from server.shipping.parquet import encoded, newest, schema
from server.shipping.ship import Files, _alone, ship, shipped
from tests.support.s3 import S3Server

KEY = Signer("router", b"r" * 32)


def write(folder: Path, sealed: int, more: int = 0) -> list[bytes]:
    """``sealed`` more records under a head, and ``more`` that no head covers. All lines of the chain."""

    async def grow() -> None:
        clock, cadence = ManualClock(), Cadence(head_seconds=3600)
        segments = Segments(folder, writer=folder.name, segment_bytes=4000)
        log = RecordLog(segments, writer=folder.name, clock=clock, cadence=cadence, key=KEY.public)
        await log.open()
        heads = Heads(log=log, sink=FakeHeads(), signer=KEY, writer=folder.name, clock=clock, cadence=cadence)
        for number in range(sealed + more):
            trace = Trace(id=f"rec-{number}", tenant="bank_a", status=200, version=Digest.of(b"v"), epoch=3)
            trace.finish_reasons, trace.started_at = ("stop",), "2026-01-01T00:00:00.000001Z"
            await durable(log.append("outcome", trace))
            if number == sealed - 1:
                await heads.submit()
        await log.close()

    asyncio.run(grow())
    return [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_bytes().splitlines()]


def rows(folder: Path, writer: str = "w") -> list[dict[str, Any]]:
    files = sorted((folder / writer).glob("*.parquet"))
    return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]


def digests(lines: list[bytes]) -> list[str]:
    return [str(Digest.of(line)) for line in lines]


def test_each_record_once_in_columns_with_types(tmp_path: Path) -> None:
    lines = write(tmp_path / "w", 25, more=3)
    shelf = FilesystemShelf(tmp_path / "out")
    assert ship(tmp_path / "w", Files(shelf, encoded, newest), batch=10) == 25
    assert ship(tmp_path / "w", Files(shelf, encoded, newest), batch=10) == 0
    found = rows(tmp_path / "out")
    assert [row["digest"] for row in found] == digests(lines[:25])
    assert sorted(file.name for file in (tmp_path / "out" / "w").iterdir())[0] == (
        "000000000000000-000000000000009.parquet"
    )
    assert (found[0]["epoch"], found[0]["finish_reasons"], found[0]["stream"]) == (3, ["stop"], False)
    assert found[0]["started_at"].isoformat() == "2026-01-01T00:00:00.000001+00:00"
    types = schema()
    assert types.field("at").type == pa.timestamp("us", tz="UTC")
    assert set(types.names) == {*Record.model_fields, "digest"}
    lines = write(tmp_path / "w", 5)
    assert ship(tmp_path / "w", Files(shelf, encoded, newest), batch=10) == 8
    assert [row["digest"] for row in rows(tmp_path / "out")] == digests(lines)


def test_bytes_that_were_no_request_are_rows_too() -> None:
    first, last = "2026-01-01T00:00:00.000001Z", "2026-01-01T00:00:00.500000Z"
    group = Group(id="rec-1", code="not_http", status=400, started_at=first, last_at=last, count=7)
    line = group.line("malformed", writer="w", seq=0, prev=genesis("w"), at=last)
    (row,) = pq.read_table(pa.BufferReader(encoded([line]))).to_pylist()
    assert (row["event"], row["tenant"], row["code"], row["count"]) == ("malformed", None, "not_http", 7)
    assert row["last_at"].isoformat() == "2026-01-01T00:00:00.500000+00:00"


def test_what_no_head_covers_is_not_shipped(tmp_path: Path) -> None:
    write(tmp_path / "w", 0, more=4)
    assert ship(tmp_path / "w", Files(FilesystemShelf(tmp_path / "out"), encoded, newest)) == 0


def test_the_bucket_of_an_s3_store(tmp_path: Path, s3: S3Server) -> None:
    lines = write(tmp_path / "w", 25)
    place = s3.place(prefix="records/")
    assert ship(tmp_path / "w", Files(S3Shelf(place), encoded, newest), batch=10) == 25
    shelf = S3Shelf(place)
    assert ship(tmp_path / "w", Files(shelf, encoded, newest), batch=10) == 0
    assert shipped(shelf, "w")[0] == 25
    found = [
        pq.read_table(pa.BufferReader(shelf.get(piece.name))).to_pylist()
        for piece in sorted(shelf.list("w"), key=lambda piece: piece.name)
    ]
    assert [row["digest"] for batch in found for row in batch] == digests(lines)


class Falling:
    """A shelf whose process ends before or after the batch is there."""

    def __init__(self, shelf: Shelf, *, after: bool) -> None:
        self._shelf = shelf
        self._after = after

    def add(self, name: str, data: bytes) -> bool:
        if self._after:
            self._shelf.add(name, data)
        raise KeyboardInterrupt

    def get(self, name: str) -> bytes:
        return self._shelf.get(name)

    def list(self, folder: str) -> Iterator[Piece]:
        return self._shelf.list(folder)


def test_a_process_that_ends_around_a_batch_neither_loses_nor_repeats_it(tmp_path: Path) -> None:
    lines = write(tmp_path / "w", 30)
    shelf = FilesystemShelf(tmp_path / "out")
    for turn in range(6):
        with pytest.raises(KeyboardInterrupt):
            ship(tmp_path / "w", Files(Falling(shelf, after=bool(turn % 2)), encoded, newest), batch=7)  # type: ignore[arg-type]
    ship(tmp_path / "w", Files(shelf, encoded, newest), batch=7)
    assert [row["digest"] for row in rows(tmp_path / "out")] == digests(lines)


def test_killed_at_random_points(tmp_path: Path) -> None:
    lines = write(tmp_path / "w", 60)
    shelf, chance = FilesystemShelf(tmp_path / "out"), random.Random(5)
    for _ in range(15):
        child = os.fork()
        if child == 0:
            try:
                ship(tmp_path / "w", Files(shelf, _plain, _plain_newest), batch=3)
            finally:
                os._exit(0)
        time.sleep(chance.uniform(0, 0.012))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    ship(tmp_path / "w", Files(shelf, _plain, _plain_newest), batch=3)
    files = sorted(path for path in (tmp_path / "out" / "w").iterdir() if not path.name.startswith("."))
    assert [line for file in files for line in file.read_bytes().splitlines()] == lines


def _plain(lines: Any) -> bytes:
    """In place of Parquet, whose threads do not live in a fork."""
    return b"".join(line + b"\n" for line in lines)


def _plain_newest(data: bytes) -> Digest:
    return Digest.of(data.splitlines()[-1])


@pytest.mark.parametrize("second", [2, 9, 10, 14])
def test_a_second_chain_of_a_writer_is_not_added_to_the_first(tmp_path: Path, second: int) -> None:
    write(tmp_path / "a" / "w", 10)
    files = Files(FilesystemShelf(tmp_path / "out"), encoded, newest)
    ship(tmp_path / "a" / "w", files)
    write(tmp_path / "b" / "w", 0, more=1)  # its lines differ: one intent more
    write(tmp_path / "b" / "w", second)
    before = rows(tmp_path / "out")
    for place in (files, Files(FilesystemShelf(tmp_path / "out"), encoded, newest)):
        with pytest.raises(RecordChainForked):
            ship(tmp_path / "b" / "w", place)
    assert rows(tmp_path / "out") == before
    lines = write(tmp_path / "a" / "w", 4)
    assert ship(tmp_path / "a" / "w", files) == 4
    assert [row["digest"] for row in rows(tmp_path / "out")] == digests(lines)


def test_two_places_at_once(tmp_path: Path) -> None:
    write(tmp_path / "w", 3)
    with _alone(tmp_path / "w", "registry"):
        assert ship(tmp_path / "w", Files(FilesystemShelf(tmp_path / "out"), encoded, newest)) == 3


def test_gaps_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "w", 30)
    shelf = FilesystemShelf(tmp_path / "out")
    ship(tmp_path / "w", Files(shelf, encoded, newest), batch=10)
    (tmp_path / "out" / "w" / "000000000000010-000000000000019.parquet").unlink()
    with pytest.raises(RecordCorrupt, match="from 10 on"):
        ship(tmp_path / "w", Files(shelf, encoded, newest))
    file = sorted((tmp_path / "w").glob("*.jsonl"))[2]
    file.write_bytes(file.read_bytes().replace(b"bank_a", b"bank_b", 1))
    with pytest.raises(RecordCorrupt, match="does not continue"):
        ship(tmp_path / "w", Files(FilesystemShelf(tmp_path / "other"), encoded, newest))
    for path in sorted((tmp_path / "w").glob("*.jsonl"))[2:]:
        path.unlink()
    with pytest.raises(RecordCorrupt, match="ends before"):
        ship(tmp_path / "w", Files(FilesystemShelf(tmp_path / "third"), encoded, newest))


def test_one_process_ships_a_writer(tmp_path: Path) -> None:
    write(tmp_path / "w", 3)
    with _alone(tmp_path / "w", "files"), pytest.raises(ShippingBusy):
        ship(tmp_path / "w", Files(FilesystemShelf(tmp_path / "out"), encoded, newest))
