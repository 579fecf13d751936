"""Usage that a router reports: made of its chain, each record in one batch, whatever fails in between."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from registry.clock import ManualClock
from registry.errors import RecordCorrupt
from router.limits import Cadence
from router.records import RecordLog, Trace
from router.records import reading as blocks
from router.records.segments import Segments
from router.testing import FakeAnswer, FakeUsage, honest
from router.usage import UsageReports
from tests.unit.router.driving import House, until

VERSION = "sha256:" + "a" * 64
CADENCE = Cadence(segment_bytes=4000, head_seconds=3600, retry_seconds=0.01)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    sink = FakeUsage()
    found = House(tmp_path, usage=sink, cadence=CADENCE)
    found.scene.engine()
    await found.app.start()
    try:
        yield found
    finally:
        await found.app.stop()


def reports(house: House) -> UsageReports:
    assert house.app.usage is not None
    return house.app.usage


def sink(house: House) -> Any:
    return reports(house)._sink


def told(fake: FakeUsage) -> Counter[str]:
    """Everything that was counted, by tenant and what."""
    sums: Counter[str] = Counter()
    for line in (line for batch in fake.batches for line in batch.lines):
        for what in ("requests", "prompt_tokens", "completion_tokens"):
            sums[f"{line.tenant} {what}"] += getattr(line, what)
    return sums


async def test_each_answered_request_is_reported_with_what_its_engine_counted(house: House) -> None:
    secrets = {tenant: house.scene.serve(tenant) for tenant in ("bank_a", "retail_b")}
    await house.publish()
    for tenant, turns in (("bank_a", 3), ("retail_b", 2)):
        for stream in [False, True] * turns:
            assert (await house.ask(secrets[tenant], {"stream": stream})).status == 200
    assert (await house.ask(secrets["bank_a"], {"model": "nothing"})).status == 404
    house.engines.script = lambda *_: FakeAnswer(500, [b"{}"])
    assert (await house.ask(secrets["bank_a"])).status == 502
    await house.app._heads.submit()  # what no head covers is not counted
    await reports(house).once()
    records = house.records()
    (batch,) = sink(house).batches
    assert (batch.writer, batch.seq, batch.after) == ("router-0", len(records) - 1, -1)
    expected: Counter[str] = Counter()
    for record in (record for record in records if record.status == 200):
        expected[f"{record.tenant} requests"] += 1
        expected[f"{record.tenant} prompt_tokens"] += record.prompt_tokens or 0
        expected[f"{record.tenant} completion_tokens"] += record.completion_tokens or 0
    assert told(sink(house)) == expected
    assert expected["bank_a requests"] == 6
    assert expected["bank_a prompt_tokens"] > 0
    assert {line.day for line in batch.lines} == {"2026-01-01"}
    assert {line.version for line in batch.lines} == {each.version for each in house.scene.versions}
    assert reports(house).waiting == 0


async def test_a_stream_that_its_client_leaves_is_a_request(house: House) -> None:
    secret = house.scene.serve("bank_a")
    await house.publish()
    hold = asyncio.Event()

    def slow(*asked: Any) -> FakeAnswer:
        answer = honest("a long answer")(*asked)
        assert isinstance(answer, FakeAnswer)
        answer.hold = hold
        return answer

    house.engines.script = slow
    call = house.call(secret, {"model": "assistant", "messages": [{"role": "user", "content": "x"}],
                               "stream": True})  # fmt: skip
    await until(lambda: bool(call.response.pieces))
    call.hang_up()
    await call.done()
    await house.app._heads.submit()  # what no head covers is not counted
    await reports(house).once()
    assert told(sink(house))["bank_a requests"] == 1


async def test_the_last_batch_is_sent_at_the_stop(house: House) -> None:
    secret = house.scene.serve("bank_a")
    await house.publish()
    await house.ask(secret)
    fake = sink(house)
    await house.app.stop()
    assert told(fake)["bank_a requests"] == 1


class Chain:
    """A log, and the reports over it; ``restart`` is a kill: nothing is told before it."""

    def __init__(self, folder: Path, fake: FakeUsage, most: int = 7) -> None:
        self.folder, self.fake, self.most, self.written = folder, fake, most, 0

    async def __aenter__(self) -> "Chain":
        segments = Segments(self.folder / "w", writer="w", segment_bytes=CADENCE.segment_bytes)
        self.log = RecordLog(segments, writer="w", clock=ManualClock(), cadence=CADENCE)
        await self.log.open()
        self.reports = UsageReports(self.fake, self.log, self.folder / "w", writer="w", most=self.most)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.log.close()

    async def restart(self) -> None:
        await self.log.close()
        await self.__aenter__()

    async def put(self, count: int, **fields: Any) -> None:
        lines = []
        for _ in range(count):
            known: dict[str, Any] = {
                "tenant": "bank_a", "adapter": "assistant", "version": VERSION, "engine": "engine-0",
                "status": 200, "prompt_tokens": 10, "completion_tokens": 1,
            }  # fmt: skip
            trace = Trace(id=f"rec-{self.written:032x}", **(known | fields))
            lines.append(self.log.append("outcome", trace))
            self.written += 1
        assert all(await asyncio.gather(*lines))


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Chain]:
    async with Chain(tmp_path, FakeUsage()) as found:
        yield found


async def test_batches_follow_each_other_over_segments_and_restarts(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 2500)  # three lines: blocks end within lines, and within segments
    total = 0
    for count in (1, 20, 0, 7, 14, 3):
        await chain.put(count)
        total += count
        await chain.reports.once()
        assert told(chain.fake)["bank_a requests"] == total
        assert chain.reports.waiting == 0
        await chain.put(2)
        total += 2
        await chain.restart()
    await chain.reports.once()
    assert told(chain.fake) == {
        "bank_a requests": total,
        "bank_a prompt_tokens": 10 * total,
        "bank_a completion_tokens": total,
    }
    assert len(list((chain.folder / "w").glob("*.jsonl"))) > 5
    assert all(batch.seq - (batch.after or 0) <= 7 for batch in chain.fake.batches[1:])


@pytest.mark.parametrize("restarted", [False, True])
async def test_lost_answers_and_refusals_count_nothing_twice_and_lose_nothing(
    chain: Chain, *, restarted: bool
) -> None:
    await chain.put(1)
    await chain.reports.once()
    await chain.put(10)
    chain.fake.answers_lost = 1
    with pytest.raises(ConnectionError):
        await chain.reports.once()
    await chain.put(5)
    chain.fake.failure = ConnectionError("nobody there")
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await chain.reports.once()
    assert chain.reports.waiting == 16  # nobody knows what is counted
    chain.fake.failure = None
    if restarted:
        await chain.restart()
    await chain.reports.once()
    await chain.reports.once()
    assert told(chain.fake)["bank_a requests"] == 16


async def test_a_batch_that_arrives_after_its_writer_asked_is_not_counted_twice(chain: Chain) -> None:
    await chain.put(3)
    real, late = chain.fake.count, []

    async def slow(batch: Any) -> bool:
        late.append(batch)
        raise TimeoutError

    chain.fake.count = slow  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        await chain.reports.once()
    await chain.put(2)
    asked = chain.fake.counted

    async def overtaken(writer: str) -> int:
        seq = await asked(writer)
        chain.fake.counted = asked  # type: ignore[method-assign]
        await real(late[0])
        return seq

    chain.fake.counted, chain.fake.count = overtaken, real  # type: ignore[method-assign]
    with pytest.raises(Exception, match="follows"):
        await chain.reports.once()
    await chain.reports.once()
    assert told(chain.fake)["bank_a requests"] == 5


@pytest.mark.parametrize(
    "fields",
    [
        {"shadow_of": "rec-1", "agrees": True},
        {"engine": None, "version": None, "prompt_tokens": None, "status": 503, "code": "overloaded"},
        {"prompt_tokens": None, "completion_tokens": None, "status": 502, "code": "engine_failed"},
        {"prompt_tokens": None, "completion_tokens": None, "status": 400, "code": "engine_rejected_request"},
    ],
    ids=["shadow", "no engine", "failed", "rejected"],
)
async def test_what_is_no_usage(chain: Chain, fields: dict[str, Any]) -> None:
    await chain.put(2, **fields)
    await chain.reports.once()
    assert not told(chain.fake)
    assert chain.fake.batches[-1].seq == 1  # so that they are not looked at again


async def test_a_discarded_answer_is_paid_for(chain: Chain) -> None:
    await chain.put(1, status=502, code="output_invalid")
    await chain.reports.once()
    assert told(chain.fake)["bank_a prompt_tokens"] == 10


async def test_a_registry_that_counted_more_than_there_is_stops_the_reports(chain: Chain) -> None:
    await chain.put(3)
    await chain.reports.once()
    other = Chain(chain.folder / "other", chain.fake)
    async with other:
        await other.put(1)
        with pytest.raises(RecordCorrupt, match="3 records of this chain of 1"):
            await other.reports.once()
        assert told(chain.fake)["bank_a requests"] == 3


async def test_the_reports_go_on_after_a_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeUsage()
    async with Chain(tmp_path, fake) as chain:
        chain.reports._every = 0.001
        await chain.put(1)
        fake.failure = ConnectionError("nobody there")
        await chain.reports.start()
        await until(lambda: chain.reports.failed > 2)
        assert caplog.text.count("usage: ConnectionError") == 1
        fake.failure = None
        await until(lambda: bool(fake.batches))
        await chain.put(1)
        await until(lambda: told(fake)["bank_a requests"] == 2)
        await chain.reports.stop()
