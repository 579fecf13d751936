"""Under one writer name there is one chain: a router asks what the registry knows of it before it writes."""

import asyncio
import logging
import time
from pathlib import Path

import orjson
import pytest

from registry.clock import ManualClock
from registry.errors import RecordCorrupt
from registry.models import RecordHead
from registry.shipping import KnownHead, genesis
from registry.signing.envelope import Envelope
from registry.signing.keys import Signer
from router.errors import RecordUnavailable
from router.limits import Cadence
from router.records import Heads, RecordLog, Trace, verify_records
from router.records.log import durable
from router.records.segments import Segments
from router.testing import FakeHeads, FakeUsage
from router.usage import UsageReports
from tests.unit.router.driving import House, until

SIGNER = Signer("router", b"r" * 32)
QUICK = Cadence(head_seconds=0.01, head_records=2, segment_bytes=3000)


class Chain:
    """The chain of writer ``w`` in a folder, with what sends its heads."""

    def __init__(self, folder: Path, sink: FakeHeads, cadence: Cadence = QUICK) -> None:
        segments = Segments(folder / "w", writer="w", segment_bytes=3000)
        clock = ManualClock()
        self.log = RecordLog(segments, writer="w", clock=clock, cadence=cadence, key=SIGNER.public)
        self.heads = Heads(log=self.log, sink=sink, signer=SIGNER, writer="w", clock=clock, cadence=cadence)
        self._name = folder.name
        self._written = 0

    async def start(self) -> "Chain":
        await self.log.open()
        await self.heads.start()
        return self

    async def put(self, count: int) -> "Chain":
        for _ in range(count):
            trace = Trace(id=f"{self._name}-{self._written}", tenant="bank_a", status=200)
            await durable(self.log.append("outcome", trace))
            self._written += 1
        return self

    async def stop(self) -> None:
        await self.heads.stop()
        await self.log.close()


async def chain(folder: Path, sink: FakeHeads, count: int) -> None:
    """Written, signed and stopped."""
    await (await (await Chain(folder, sink).start()).put(count)).stop()


def spans(sink: FakeHeads) -> list[tuple[int | None, int]]:
    found = [RecordHead.parse(envelope.body()) for envelope in sink.envelopes]
    return [(head.first, head.seq) for head in found]


async def test_a_chain_goes_on_where_the_registry_knows_it(tmp_path: Path) -> None:
    sink = FakeHeads()
    for _ in range(3):
        await chain(tmp_path / "a", sink, 30)
    assert [last for _, last in spans(sink)][-1] == 89
    assert verify_records(tmp_path / "a", {SIGNER.public.id: SIGNER.public}, sink.envelopes) == []


@pytest.mark.parametrize("second", [0, 3, 9, 40])
async def test_a_writer_whose_records_were_lost_begins_no_second_chain(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, second: int
) -> None:
    sink = FakeHeads()
    await chain(tmp_path / "a", sink, 9)
    before = list(sink.envelopes)
    if second:  # written while it could not ask: the fault of an older router
        other = Chain(tmp_path / "b", sink)
        await other.log.open()
        await other.put(second)
        await other.log.close()
    lost = await Chain(tmp_path / "b", sink).start()
    assert lost.heads.refused
    assert "record_chain_forked" in str(lost.log.fault)
    assert "TENON_WRITER" in str(lost.log.fault)
    with pytest.raises(RecordUnavailable):
        await lost.put(1)
    await asyncio.sleep(0.05)  # several turns of a cadence of 10 ms
    await lost.stop()
    assert sink.envelopes == before
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert "record_chain_forked" in told[0]


async def test_two_routers_of_one_name_end_with_one(tmp_path: Path) -> None:
    sink = FakeHeads()
    slow = Cadence(head_seconds=3600)
    first, second = Chain(tmp_path / "a", sink, slow), Chain(tmp_path / "b", sink, slow)
    await first.start()
    await second.start()  # nobody has signed anything yet
    await first.put(4)
    await second.put(9)
    await first.heads.submit()
    await second.heads.submit()
    assert spans(sink) == [(0, 3)]
    assert second.heads.refused
    with pytest.raises(RecordUnavailable):
        await second.put(1)
    assert first.log.fault is None
    await first.put(1)
    for each in (first, second):
        await each.stop()
    assert spans(sink) == [(0, 3), (4, 4)]


async def test_nothing_is_written_before_the_registry_was_heard(tmp_path: Path) -> None:
    sink = FakeHeads()
    sink.failure = ConnectionError("gone")
    waiting = await Chain(tmp_path / "a", sink).start()
    assert "has not said yet" in str(waiting.log.fault)
    with pytest.raises(RecordUnavailable):
        await waiting.put(1)
    sink.failure = None
    await until(lambda: waiting.log.fault is None)
    await waiting.put(1)
    sink.failure = ConnectionError("gone again")  # then the records wait on disk, and requests are answered
    await waiting.put(5)
    assert waiting.log.fault is None
    sink.failure = None
    await waiting.stop()
    assert spans(sink)[-1][1] == 5


async def test_an_answer_that_was_lost_is_no_second_chain(tmp_path: Path) -> None:
    sink = FakeHeads()
    slow = Cadence(head_seconds=3600)
    first = await Chain(tmp_path / "a", sink, slow).start()
    await first.put(3)
    sink.answers_lost = 1
    await first.heads.submit()
    await first.put(2)
    await first.heads.submit()
    assert spans(sink) == [(0, 2), (3, 4)]
    await first.put(2)
    sink.answers_lost = 1
    await first.heads.submit()
    await first.log.close()  # killed: the registry knows more than the file beside the chain says
    again = await Chain(tmp_path / "a", sink, slow).start()
    assert again.log.fault is None
    assert again.heads.sealed == 7
    await again.put(1)
    await again.stop()
    assert spans(sink) == [(0, 2), (3, 4), (5, 6), (7, 7)]
    assert verify_records(tmp_path / "a", {SIGNER.public.id: SIGNER.public}, sink.envelopes) == []


async def test_a_registry_put_back_to_an_older_state_is_told_again(tmp_path: Path) -> None:
    sink = FakeHeads()
    slow = Cadence(head_seconds=3600)
    first = await Chain(tmp_path / "a", sink, slow).start()
    for _ in range(3):
        await first.put(20)
        await first.heads.submit()
    del sink.envelopes[1:]
    await first.put(1)
    await first.heads.submit()
    assert spans(sink) == [(0, 19), (20, 60)]
    assert not first.heads.refused
    await first.stop()
    assert verify_records(tmp_path / "a", {SIGNER.public.id: SIGNER.public}, sink.envelopes) == []


async def test_a_refusal_that_was_mended_is_over(tmp_path: Path) -> None:
    sink = FakeHeads()
    await chain(tmp_path / "a", sink, 3)
    kept = list(sink.envelopes)
    other = await Chain(tmp_path / "b", sink).start()
    assert other.heads.refused
    sink.envelopes.clear()
    await until(lambda: not other.heads.refused)
    assert other.log.fault is None
    await other.stop()
    assert kept


async def test_usage_counts_only_what_the_registry_knows_by_a_head(tmp_path: Path) -> None:
    sink, usage, slow = FakeHeads(), FakeUsage(), Cadence(head_seconds=3600)

    def reports(of: Chain, folder: Path) -> UsageReports:
        return UsageReports(usage, of.log, folder / "w", writer="w", sealed=lambda: of.heads.sealed)

    first, second = Chain(tmp_path / "a", sink, slow), Chain(tmp_path / "b", sink, slow)
    await first.start()
    await second.start()
    await first.put(4)
    await second.put(9)
    told = reports(first, tmp_path / "a")
    await told.once()
    assert usage.batches == []
    await first.heads.submit()
    await second.heads.submit()
    await told.once()
    await reports(second, tmp_path / "b").once()
    assert [(batch.after, batch.seq) for batch in usage.batches] == [(-1, 3)]
    for each in (first, second):
        await each.stop()


async def test_usage_that_is_ahead_of_the_heads_waits(tmp_path: Path) -> None:
    """As it is after an older router, which counted what was on disk."""
    sink, usage, slow = FakeHeads(), FakeUsage(), Cadence(head_seconds=3600)
    first = await Chain(tmp_path / "a", sink, slow).start()
    await first.put(5)
    await UsageReports(usage, first.log, tmp_path / "a" / "w", writer="w").once()
    told = UsageReports(
        usage, first.log, tmp_path / "a" / "w", writer="w", sealed=lambda: min(3, first.heads.sealed)
    )
    await first.heads.submit()
    await told.once()
    assert [batch.seq for batch in usage.batches] == [4]
    behind = await Chain(tmp_path / "b", FakeHeads(), slow).start()
    await behind.put(2)
    with pytest.raises(RecordCorrupt):
        await UsageReports(usage, behind.log, tmp_path / "b" / "w", writer="w").once()
    for each in (first, behind):
        await each.stop()


async def test_readiness_metrics_and_requests_tell_of_it(tmp_path: Path) -> None:
    house = House(tmp_path)
    secret = house.scene.serve("bank_a")
    other = Envelope.build(_head_of_another("router-0").model_dump())
    house.heads.envelopes.append(other)
    await house.app.start()
    try:
        await house.publish()
        ready = await house.get("/readyz")
        assert ready.status == 503
        assert "record_chain_forked" in str(orjson.loads(ready.body)["reasons"])
        assert (await house.ask(secret)).status == 503
        assert b"tenon_record_chain_refused 1.0" in (await house.get("/metrics")).body
        assert not house.engines.asked
    finally:
        await house.app.stop()
    assert house.heads.envelopes == [other]


class Deaf:
    """A registry, and a collector of spans, that never answer."""

    dropped = 0

    def __init__(self) -> None:
        self.deaf = False

    async def known(self, writer: str) -> KnownHead:
        if self.deaf:
            await asyncio.sleep(3600)
        return KnownHead(writer=writer, seq=-1, digest=genesis(writer))

    async def submit(self, _envelope: Envelope) -> None:
        await asyncio.sleep(3600)

    async def counted(self, _writer: str) -> int:
        await asyncio.sleep(3600)
        return 0

    async def count(self, _batch: object) -> bool:
        await asyncio.sleep(3600)
        return True

    def begin(self, _sent: object) -> None: ...
    def finished(self, *_: object) -> None: ...
    def close(self) -> None:
        time.sleep(0.5)


async def test_a_stop_waits_for_deaf_listeners_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("router.records.heads", "router.usage"):
        monkeypatch.setattr(f"{module}._FAREWELL_SECONDS", 0.3)
    deaf = Deaf()
    house = House(tmp_path, usage=deaf, spans=deaf)
    house.app._heads._sink = deaf
    await house.app.start()
    await durable(house.app.records.append("outcome", Trace(id="rec", tenant="bank_a", status=200)))
    deaf.deaf = True
    at = time.monotonic()
    await house.app.stop()
    assert 0.5 <= time.monotonic() - at < 0.5 + 0.3 + 0.3


def _head_of_another(writer: str) -> Envelope:
    known = KnownHead(writer=writer, seq=40, digest=SIGNER.sign("x", b"other").identity())
    head = RecordHead(writer=writer, seq=known.seq, digest=known.digest, at="2026-01-01T00:00:00.000000Z")
    return SIGNER.sign("application/vnd.tenon.record-head+json", head.canonical())
