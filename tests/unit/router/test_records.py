"""The record chain on disk: written before the answer, resumed after a crash, honest about damage."""

import asyncio
import errno
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from registry.clock import ManualClock
from registry.digests import Digest
from registry.errors import RecordCorrupt
from registry.models import Quota
from registry.signing.envelope import Envelope, verify
from registry.signing.keys import Signer
from registry.signing.types import RECORD_HEAD
from router.errors import RecordsBusy, RecordUnavailable
from router.limits import Cadence
from router.ports import EngineAnswer
from router.records import Heads, RecordFault, RecordHead, RecordLog, Trace, genesis, verify_records
from router.records.log import durable
from router.records.record import Record
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


async def test_a_fault_that_nobody_foresaw_lets_nobody_wait_for_ever(tmp_path: Path) -> None:
    broken = [True]

    def sync(descriptor: int) -> None:
        if broken[0]:
            raise ValueError("not what a disk says")
        os.fsync(descriptor)

    broken[0] = False
    async with opened(tmp_path, sync) as log:
        broken[0] = True
        async with asyncio.timeout(5):
            for _ in range(2):  # the thread goes on
                with pytest.raises(RecordUnavailable):
                    await put(log, "rec-0")
                assert log.fault == "ValueError"
        broken[0] = False
        await until(lambda: log.fault is None)
        await put(log, "rec-1")
    assert [b"rec-1" in line for line in lines(tmp_path)] == [True]
    assert verify_records(tmp_path, {}, []) == []


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    disk = Disk()
    segments = Segments(tmp_path, writer="w", segment_bytes=10, sync=disk)
    segments.open(lambda line, place, seq, digest: None)
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


@pytest.mark.parametrize("stream", [False, True])
async def test_an_intent_is_on_disk_before_anybody_is_asked(house: House, stream: bool) -> None:
    secret = house.scene.serve("bank_a", intent_durable=True)
    await house.publish()
    slow, ask, seen = threading.Event(), house.engines.ask, list[list[str]]()

    def sync(descriptor: int) -> None:
        slow.wait(10)
        os.fsync(descriptor)

    async def looking(url: str, body: bytes, traceparent: bytes = b"") -> EngineAnswer:
        seen.append([record.event for record in house.records() if slow.is_set()])
        return await ask(url, body, traceparent)

    house.app.records._segments._sync = sync
    house.engines.ask = looking  # type: ignore[method-assign]
    call = house.call(secret, {**QUESTION, "stream": stream})
    await until(lambda: house.app.records._written is not None)
    for _ in range(20):  # while the disk takes its time
        await asyncio.sleep(0)
    assert seen == []
    slow.set()
    found = await call.done()
    assert (found.status, seen) == (200, [["intent"]])
    assert house.outcome(found).status == 200


async def test_an_intent_that_cannot_be_written_asks_nobody(house: House) -> None:
    secret = house.scene.serve("bank_a", intent_durable=True)
    house.scene.tenants["bank_a"] = house.scene.tenants["bank_a"].model_copy(
        update={"quota": Quota(tokens_per_minute=1000)}
    )
    await house.publish()
    disk = Disk()
    house.app.records._segments._sync = disk
    disk.failing = True
    found = await house.ask(secret)
    assert (found.status, found.code) == (503, "record_unavailable")
    assert house.engines.asked == []
    minute = house.app.admission.accounts["tenant/bank_a"].tokens
    assert minute is not None
    assert minute.used == 0  # it reached no engine: it never counted


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
    cadence = Cadence(head_records=2, head_seconds=0.01)
    async with opened(tmp_path) as log:
        heads = Heads(log=log, sink=sink, signer=signer, writer="w", clock=ManualClock(), cadence=cadence)
        await heads.start()
        sink.failure = OSError("gone")
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


def signed_log(folder: Path, signer: Signer, receipts: int = 3) -> RecordLog:
    cadence = Cadence(segment_bytes=4000, receipts=receipts, head_seconds=3600)
    segments = Segments(folder / "w", writer="w", segment_bytes=4000)
    return RecordLog(segments, writer="w", clock=ManualClock(), cadence=cadence, key=signer.public)


async def sealed_trail(folder: Path, signer: Signer, *, sealed: int, more: int) -> FakeHeads:
    """``sealed`` lines under a head that was taken, and then ``more``."""
    sink, log = FakeHeads(), signed_log(folder, signer)
    await log.open()
    cadence = Cadence(head_seconds=3600)
    heads = Heads(log=log, sink=sink, signer=signer, writer="w", clock=ManualClock(), cadence=cadence)
    for i in range(sealed + more):
        await put(log, f"rec-{i}")
        if i == sealed - 1:
            await heads.submit()
    await log.close()
    return sink


async def test_a_start_reads_the_end_of_the_chain_only(tmp_path: Path, signer: Signer) -> None:
    await sealed_trail(tmp_path, signer, sealed=39, more=1)
    first = tmp_path / "w" / "000000.jsonl"
    first.write_bytes(first.read_bytes().replace(b"bank_a", b"bank_b"))
    log = signed_log(tmp_path, signer)
    await log.open()
    assert log.durable is not None
    assert log.durable.seq == 40
    assert await log.read("rec-39", "bank_a")
    assert await log.read("rec-0", "bank_a") is None
    await put(log, "rec-40")
    await log.close()
    assert {fault.file for fault in verify_records(tmp_path, {}, [])} == {"w/000000.jsonl"}


@pytest.mark.parametrize("more", [0, 1, 12])
async def test_a_start_notices_what_a_kept_head_says(tmp_path: Path, signer: Signer, more: int) -> None:
    await sealed_trail(tmp_path, signer, sealed=12, more=more)
    files = sorted((tmp_path / "w").glob("*.jsonl"))
    stored = [line for file in files for line in file.read_bytes().splitlines()]
    for file in files[1:]:
        file.unlink()
    files[0].write_bytes(b"".join(line + b"\n" for line in stored[:11]))
    with pytest.raises(RecordCorrupt, match="signed head covers seq 11"):
        await signed_log(tmp_path, signer).open()
    files[0].write_bytes(b"".join(line + b"\n" for line in stored))
    log = signed_log(tmp_path, signer)
    await log.open()
    await log.close()
    other = Signer.generate("router")  # a new key knows nothing of what the old one signed, and says so
    log = signed_log(tmp_path, other)
    await log.open()
    await log.close()


async def test_a_chain_rewritten_behind_its_head_is_not_continued(tmp_path: Path, signer: Signer) -> None:
    await sealed_trail(tmp_path, signer, sealed=5, more=0)
    head = (tmp_path / "w" / "head.json").read_bytes()
    for file in (tmp_path / "w").iterdir():
        file.unlink()
    log = signed_log(tmp_path, Signer.generate("router"))
    await log.open()
    for i in range(9):
        await put(log, f"rec-forged-{i}")
    await log.close()
    (tmp_path / "w" / "head.json").write_bytes(head)
    with pytest.raises(RecordCorrupt, match="does not continue"):
        await signed_log(tmp_path, signer).open()


async def test_heads_cover_every_record_once_over_restarts_and_refusals(
    tmp_path: Path, signer: Signer
) -> None:
    sink = FakeHeads()
    for turn in range(3):
        log = signed_log(tmp_path, signer)
        await log.open()
        cadence = Cadence(head_seconds=3600)
        heads = Heads(log=log, sink=sink, signer=signer, writer="w", clock=ManualClock(), cadence=cadence)
        for i in range(4):
            await put(log, f"rec-{turn}-{i}")
            sink.failure = OSError("gone") if i in (0, 2) else None
            await heads.submit()
        await put(log, f"rec-{turn}-unsealed")  # and then it is killed
        await log.close()
        assert verify_records(tmp_path, {signer.public.id: signer.public}, sink.envelopes) == []
    found = [RecordHead.parse(envelope.body()) for envelope in sink.envelopes]
    assert [(head.first, head.seq) for head in found] == [(0, 1), (2, 3), (4, 6), (7, 8), (9, 11), (12, 13)]


async def test_a_root_that_is_not_of_these_records_is_a_fault(tmp_path: Path, signer: Signer) -> None:
    sink = await sealed_trail(tmp_path, signer, sealed=5, more=0)
    head = RecordHead.parse(sink.envelopes[0].body())
    forged = head.model_copy(update={"root": Digest.of(b"other records")})
    envelope = signer.sign(RECORD_HEAD, forged.canonical())
    (fault,) = verify_records(tmp_path, {signer.public.id: signer.public}, [envelope])
    assert "root" in fault.what


def test_heads_of_before_keep_their_bytes() -> None:
    old = RecordHead(writer="w", seq=4, digest=Digest.of(b"x"), at="2026")
    assert set(orjson.loads(old.canonical())) == {"kind", "writer", "seq", "digest", "at"}


def line_of(trace: Trace) -> dict[str, Any]:
    line = trace.line("outcome", writer="w", seq=0, prev=genesis("w"), at="2026")
    return dict(orjson.loads(line))


def test_lines_from_before_canaries_are_still_records() -> None:
    fields = line_of(Trace(id="rec-1"))
    assert Record.parse(orjson.dumps(fields)).canary is None
    del fields["canary"]
    assert Record.parse(orjson.dumps(fields)) == Record.parse(orjson.dumps(line_of(Trace(id="rec-1"))))


def test_lines_of_before_keep_their_bytes() -> None:
    """What came later says nothing unless it is set: the line of an older router is what ours would write."""
    trace = Trace(id="rec-1")
    line = trace.line("outcome", writer="w", seq=0, prev=genesis("w"), at="2026")
    later = ("engine_version", "shadow_of", "started_at", "surface")
    assert not any(name.encode() in line for name in later)
    assert Record.parse(line).canonical() == line
    for name in later:
        trace = Trace(id="rec-1")
        setattr(trace, name, "x")
        full = trace.line("outcome", writer="w", seq=0, prev=genesis("w"), at="20")
        assert Record.parse(full).canonical() == full
        assert orjson.loads(full)[name] == "x"


@pytest.mark.parametrize("knows", [True, False])
def test_what_is_written_is_forced_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, knows: bool
) -> None:
    """In the write itself, or after it on a file system that does not know how."""
    forced: list[str] = []
    put = os.pwritev

    def pwritev(file: int, data: list[bytes], at: int, flags: int) -> int:
        if not knows:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        if flags & os.RWF_DSYNC:
            forced.append("written")
        return put(file, data, at, flags)

    def fdatasync(_: int) -> None:
        forced.append("synced")

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    segments = Segments(tmp_path, writer="w", segment_bytes=1000, sync=os.fdatasync)
    segments.open(lambda line, place, seq, digest: None)
    forced.clear()
    for line in (b"first\n", b"second\n"):
        segments.write(line)
    segments.close()
    assert forced == (["written"] * 2 if knows else ["synced"] * 2)
    assert (tmp_path / "000000.jsonl").read_bytes() == b"first\nsecond\n"
