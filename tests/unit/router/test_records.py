"""The record chain on disk: written before the answer, resumed after a crash, honest about damage."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from registry.clock import ManualClock
from registry.digests import Digest
from registry.errors import RecordCorrupt
from registry.signing.envelope import Envelope, verify
from registry.signing.keys import Signer
from registry.signing.types import RECORD_HEAD
from router.errors import RecordsBusy, RecordUnavailable
from router.limits import Cadence
from router.records import Heads, RecordFault, RecordHead, RecordLog, Trace, genesis, verify_records
from router.records.log import durable
from router.records.record import Record, line_of
from router.records.segments import Segments
from router.testing import FakeAnswer, FakeHeads, honest, stream
from tests.unit.router.driving import QUESTION, House, until

CADENCE = Cadence(segment_bytes=4000, retry_seconds=0.01, head_seconds=3600)


class Disk:
    """``os.fsync`` that can fail, and counts."""

    def __init__(self) -> None:
        self.failing = False
        self.calls = 0

    def __call__(self, descriptor: int) -> None:
        self.calls += 1
        if self.failing:
            raise OSError(28, "No space left on device")
        os.fsync(descriptor)


def new_log(folder: Path, sync: Callable[[int], None] = os.fsync) -> RecordLog:
    segments = Segments(folder / "w", writer="w", segment_bytes=CADENCE.segment_bytes, sync=sync)
    return RecordLog(segments, writer="w", clock=ManualClock(), cadence=CADENCE)


@asynccontextmanager
async def opened(folder: Path, sync: Callable[[int], None] = os.fsync) -> AsyncIterator[RecordLog]:
    log = new_log(folder, sync)
    await log.open()
    try:
        yield log
    finally:
        await log.close()


async def put(log: RecordLog, name: str, tenant: str | None = "bank_a") -> None:
    await durable(log.append("outcome", Trace(id=name, tenant=tenant, status=200)))


def lines(folder: Path) -> list[bytes]:
    return [
        line for file in sorted((folder / "w").glob("*.jsonl")) for line in file.read_bytes().splitlines()
    ]


async def test_lines_are_chained_and_resumed(tmp_path: Path) -> None:
    for start in (0, 3):
        async with opened(tmp_path) as log:
            for i in range(3):
                await put(log, f"rec-{start + i}")
    stored = lines(tmp_path)
    assert len(stored) == 6
    assert f'"prev":"{genesis("w")}"'.encode() in stored[0]
    for before, after in itertools.pairwise(stored):
        assert f'"prev":"{Digest.of(before)}"'.encode() in after
    assert verify_records(tmp_path, {}, []) == []


async def test_many_lines_share_an_fsync(tmp_path: Path) -> None:
    disk = Disk()
    async with opened(tmp_path, disk) as log:
        before = disk.calls
        await asyncio.gather(*(put(log, f"rec-{i}") for i in range(200)))
        assert disk.calls - before <= 4
    assert len(lines(tmp_path)) == 200


async def test_segments_roll_over_and_receipts_are_found_in_all(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        for i in range(20):
            await put(log, f"rec-{i}")
    assert len(list((tmp_path / "w").glob("*.jsonl"))) > 2
    async with opened(tmp_path) as log:
        stored = lines(tmp_path)
        for i in range(20):
            assert await log.read(f"rec-{i}", "bank_a") == stored[i]
        assert await log.read("rec-3", "retail_b") is None
        assert await log.read("rec-99", "bank_a") is None
    assert verify_records(tmp_path, {}, []) == []


async def test_a_torn_last_line_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tmp_path) as log:
        await put(log, "rec-0")
        await put(log, "rec-1")
    file = tmp_path / "w" / "000000.jsonl"
    data = file.read_bytes()
    file.write_bytes(data[:-10])
    async with opened(tmp_path) as log:
        assert "torn" in caplog.text
        assert (tmp_path / "w" / "000000.torn").read_bytes() == data[:-10].splitlines()[1] + b"\n"
        await put(log, "rec-2")
    assert b'"id":"rec-2"' in lines(tmp_path)[1]
    assert verify_records(tmp_path, {}, []) == []


@pytest.mark.parametrize("line", [0, 1, 2])
async def test_a_changed_line_stops_the_start(tmp_path: Path, line: int) -> None:
    async with opened(tmp_path) as log:
        for i in range(3):
            await put(log, f"rec-{i}")
    file = tmp_path / "w" / "000000.jsonl"
    stored = file.read_bytes().splitlines()
    stored[line] = stored[line].replace(b'"seq":', b'"seQ":')
    file.write_bytes(b"\n".join(stored) + b"\n")
    log = new_log(tmp_path)
    with pytest.raises(RecordCorrupt, match=f"line {line + 1} of 000000.jsonl"):
        await log.open()


async def test_one_writer_at_a_time(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(RecordsBusy):
            await new_log(tmp_path).open()
    async with opened(tmp_path):
        pass


async def test_a_failing_disk_fails_closed_and_recovers(tmp_path: Path) -> None:
    disk = Disk()
    async with opened(tmp_path, disk) as log:
        await put(log, "rec-0")
        disk.failing = True
        with pytest.raises(RecordUnavailable):
            await put(log, "rec-1")
        assert log.fault == "No space left on device"
        with pytest.raises(RecordUnavailable):
            log.append("outcome", Trace(id="rec-2"))
        disk.failing = False
        await until(lambda: log.fault is None)
        await put(log, "rec-3")
    assert [b"rec-0" in lines(tmp_path)[0], b"rec-3" in lines(tmp_path)[1]] == [True, True]
    assert verify_records(tmp_path, {}, []) == []


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    disk = Disk()
    segments = Segments(tmp_path, writer="w", segment_bytes=10, sync=disk)
    segments.open(lambda line, fields: None)
    for data in (b"first\n", b"second\n"):  # the second write rolls over to a new segment
        disk.failing = True
        with pytest.raises(OSError, match="No space"):
            segments.write(b"this is lost\n" * 9)
        disk.failing = False
        segments.write(data)
    disk.failing = True
    with pytest.raises(OSError, match="No space"):
        segments.write(b"no")
    disk.failing = False
    segments.close()
    stored = [file.read_bytes() for file in sorted(tmp_path.glob("*.jsonl"))]
    assert b"".join(stored) == b"first\nsecond\n"


async def test_no_answer_without_a_record(house: House, bank: str) -> None:
    disk = Disk()
    disk.failing = True
    house.app.records._segments._sync = disk
    house.engines.script = honest("LEAK")
    for changes in ({}, {"stream": True}):
        response = await house.ask(bank, changes)
        assert (response.status, response.code) == (503, "record_unavailable")
        assert b"LEAK" not in response.body
    ready = await house.get("/readyz")
    assert ready.status == 503
    assert "records cannot be written: No space left on device" in ready.json()["reasons"]
    disk.failing = False
    await until(lambda: house.app.records.fault is None)
    assert (await house.ask(bank)).status == 200


async def test_a_stream_whose_outcome_cannot_be_written_ends_with_an_error(house: House, bank: str) -> None:
    disk = Disk()
    house.app.records._segments._sync = disk
    hold = asyncio.Event()
    house.engines.script = lambda body: FakeAnswer(200, stream(body, "ab"), hold=hold)
    call = house.call(bank, {**QUESTION, "stream": True})
    await until(lambda: bool(call.response.pieces))
    disk.failing = True
    hold.set()
    response = await call.done()
    assert response.events()[-1]["error"]["code"] == "record_unavailable"
    assert b"[DONE]" not in response.body
    assert b'"finish_reason":"stop"' not in response.body


# -- verifying a trail as an outsider ---------------------------------------------------------------------


async def trail(folder: Path, signer: Signer, count: int = 5) -> list[Envelope]:
    """``count`` records and a signed head over all of them."""
    sink = FakeHeads()
    async with opened(folder) as log:
        heads = Heads(log=log, sink=sink, signer=signer, writer="w", clock=ManualClock(), cadence=CADENCE)
        for i in range(count):
            await put(log, f"rec-{i}")
        await heads.submit()
        await heads.submit()  # nothing new: nothing sent
    assert len(sink.envelopes) == 1
    return sink.envelopes


@pytest.fixture
def signer() -> Signer:
    return Signer.generate("router")


async def check(
    folder: Path, signer: Signer, edit: Callable[[list[bytes]], list[bytes]], *, last: int | None = None
) -> list[RecordFault]:
    envelopes = await trail(folder, signer, last or 5)
    files = sorted((folder / "w").glob("*.jsonl"))
    stored = edit([line for file in files for line in file.read_bytes().splitlines()])
    for file in files[1:]:
        file.unlink()
    files[0].write_bytes(b"".join(line + b"\n" for line in stored))
    return verify_records(folder, {signer.public.id: signer.public}, envelopes)


async def test_an_untouched_trail_is_sound(tmp_path: Path, signer: Signer) -> None:
    assert await check(tmp_path, signer, lambda stored: stored) == []


async def test_a_changed_byte_is_named(tmp_path: Path, signer: Signer) -> None:
    def edit(stored: list[bytes]) -> list[bytes]:
        stored[2] = stored[2].replace(b"bank_a", b"bank_b")
        return stored

    (fault,) = await check(tmp_path, signer, edit)
    assert (fault.file, fault.line, fault.seq) == ("w/000000.jsonl", 3, 2)
    assert "bytes were changed" in fault.what


async def test_a_changed_last_line_is_caught_by_the_head(tmp_path: Path, signer: Signer) -> None:
    def edit(stored: list[bytes]) -> list[bytes]:
        stored[4] = stored[4].replace(b"bank_a", b"bank_b")
        return stored

    (fault,) = await check(tmp_path, signer, edit)
    assert (fault.line, fault.seq) == (5, 4)
    assert "signed head" in fault.what


async def test_a_missing_line_is_a_gap(tmp_path: Path, signer: Signer) -> None:
    (fault,) = await check(tmp_path, signer, lambda stored: stored[:2] + stored[3:])
    assert (fault.line, fault.seq) == (3, 3)
    assert "seq 2 is missing" in fault.what


async def test_a_cut_end_is_caught_by_the_head(tmp_path: Path, signer: Signer) -> None:
    (fault,) = await check(tmp_path, signer, lambda stored: stored[:3])
    assert (fault.file, fault.seq) == ("w", 4)
    assert "the end was cut off" in fault.what
    (fault,) = await check(tmp_path / "all", signer, lambda _: [])
    assert "ends at none" in fault.what


async def test_an_unreadable_line_is_named(tmp_path: Path, signer: Signer) -> None:
    faults = await check(tmp_path, signer, lambda stored: [*stored[:1], b"\x00garbage", *stored[2:]])
    assert [(fault.line, fault.seq) for fault in faults] == [(2, 1)]


async def test_another_writers_chain_is_not_accepted(tmp_path: Path, signer: Signer) -> None:
    await trail(tmp_path, signer)
    (tmp_path / "w").rename(tmp_path / "x")
    faults = verify_records(tmp_path, {}, [])
    assert faults
    assert "written by 'w'" in faults[0].what


async def test_a_head_by_a_stranger_is_a_fault(tmp_path: Path, signer: Signer) -> None:
    envelopes = await trail(tmp_path, Signer.generate("router"))
    (fault,) = verify_records(tmp_path, {signer.public.id: signer.public}, envelopes)
    assert "head 0" in fault.what


async def test_heads_are_sent_after_so_many_records_and_again_after_a_refusal(
    tmp_path: Path, signer: Signer
) -> None:
    sink = FakeHeads()
    sink.failure = OSError("gone")
    cadence = Cadence(head_records=2, head_seconds=0.01)
    async with opened(tmp_path) as log:
        heads = Heads(log=log, sink=sink, signer=signer, writer="w", clock=ManualClock(), cadence=cadence)
        await heads.start()
        await put(log, "rec-0")
        await put(log, "rec-1")
        assert heads.unsent == 2
        sink.failure = None
        await until(lambda: heads.unsent == 0)
        await put(log, "rec-2")
        await heads.stop()
    payloads = [
        verify(e, payload_type=RECORD_HEAD, trusted={signer.public.id: signer.public}, role="router")
        for e in sink.envelopes
    ]
    found = [RecordHead.parse(payload) for payload in payloads]
    assert [head.seq for head in found][-1] == 2
    assert found[-1].digest == Digest.of(lines(tmp_path)[2])


def test_lines_from_before_canaries_are_still_records() -> None:
    fields = Trace(id="rec-1").fields() | {"writer": "w", "seq": 0, "prev": genesis("w"), "at": "2026"}
    fields |= {"kind": "tenon.record/v1", "event": "outcome"}
    line = line_of(fields)
    assert Record.parse(line).canary is None
    del fields["canary"]
    assert Record.parse(line_of(fields)) == Record.parse(line)
