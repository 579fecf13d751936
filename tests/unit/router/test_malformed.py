"""Bytes that were no request: the right answer, a record for every one of them, and no flood in the chain."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.clock import ManualClock
from registry.shipping import genesis
from router.errors import RecordUnavailable
from router.groups import Group, Groups
from router.malformed import Fault, Malformed
from router.records.record import Event, Record
from tests.unit.router.driving import House, until
from tests.unit.router.test_network import ASKING, Running, honest, request, running
from tests.unit.router.test_records import Disk, opened

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
BYTES: dict[str, tuple[bytes, Fault]] = {
    "garbage": (b"SECRET words\r\n\r\n", Fault.NOT_HTTP),
    "TLS": (b"\x16\x03\x01\x02\x00\x01", Fault.NOT_HTTP),
    "NUL": (POST + b"X-Secret: a\0b\r\n\r\n", Fault.NOT_HTTP),
    "a folded line": (POST + b"X-Secret: a\r\n b\r\n\r\n", Fault.NOT_HTTP),
    "another version": (b"GET / HTTP/2.0\r\n\r\n", Fault.NOT_HTTP),
    "no version": (b"GET /\r\n\r\n", Fault.NOT_HTTP),
    "a tunnel": (b"CONNECT secret:1 HTTP/1.1\r\n\r\n", Fault.NOT_HTTP),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", Fault.AMBIGUOUS_LENGTH),
    "length and chunks": (
        POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Fault.AMBIGUOUS_LENGTH,
    ),
    "chunks and length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", Fault.AMBIGUOUS_LENGTH,
    ),
    "another encoding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n", Fault.AMBIGUOUS_LENGTH),
    "an endless head": (POST + b"X-Secret: a\r\n" * 6000, Fault.HEAD_TOO_LARGE),
    "a slow head": (POST, Fault.HEAD_TIMEOUT),
}  # fmt: skip


async def said(router: Running, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    try:
        writer.write(data)
        return await reader.read()
    except ConnectionError:  # refused while more was on its way
        return b""
    finally:
        writer.close()


def groups(house: House) -> list[Record]:
    return [record for record in house.records() if record.event == "malformed"]


async def test_each_is_refused_and_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.serving.HEAD_SECONDS", 0.3)
    async with running(tmp_path, honest) as router:
        expected = Counter[str]()
        for data, fault in BYTES.values():
            answer = await said(router, data)
            assert answer.startswith(b"HTTP/1.1 %d " % fault.status), (data, answer)
            expected[fault] += 1
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        assert await reader.read() == b""  # who says no word did nothing wrong
        writer.close()
        scrape = (await router.house.get("/metrics")).body.decode()
        for fault in Fault:
            assert f'tenon_malformed_requests_total{{fault="{fault}"}} {float(expected[fault])}' in scrape
    found = Counter[str]()
    for record in groups(router.house):
        assert record.count is not None
        assert record.code is not None
        found[record.code] += record.count
        assert record.status == Fault(record.code).status
        assert record.canonical() in (tmp_path / "router-0" / "000000.jsonl").read_bytes()
        assert b"ecret" not in record.canonical()
    assert found == expected
    assert not router.engine.bodies


async def test_trailers_without_end(tmp_path: Path) -> None:
    async with running(tmp_path, honest) as router:
        await said(router, POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 100_000)
    assert [(each.code, each.status, each.count) for each in groups(router.house)] == [
        ("trailers_too_large", 431, 1)
    ]


async def test_a_connection_is_refused_once(tmp_path: Path) -> None:
    async with running(tmp_path, honest) as router:
        slow = request(router.secret, ASKING)
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(slow + b"garbage\r\n\r\n")
        writer.write(b"more garbage\r\n\r\n" * 3)
        assert b"HTTP/1.1 200 " in await reader.read()
        writer.close()
    assert [each.count for each in groups(router.house)] == [1]


async def test_no_tenant_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.groups._SECONDS", 0.001)
    async with running(tmp_path, honest) as router:
        await said(router, b"garbage\r\n\r\n")
        await until(lambda: bool(groups(router.house)))
        (record,) = groups(router.house)
        for identity in (record.id, "rec-nobody's"):
            found = await router.house.get(f"/v1/receipts/{identity}", router.secret)
            assert (found.status, found.code) == (404, "receipt_not_found")


async def test_a_flood_is_a_line_a_second_for_each_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as log:
        clock = ManualClock()
        groups = Groups(log, clock, bytes)
        malformed = Malformed(groups)
        await groups.start()
        for fault in Fault:
            for _ in range(1000):
                malformed.note(fault)
                clock.advance(0.001)
        await groups.stop()
    lines = (tmp_path / "w" / "000000.jsonl").read_bytes().splitlines()
    assert [Record.parse(line).count for line in lines] == [1000] * len(Fault)
    first = Record.parse(lines[0])
    assert (first.started_at, first.last_at) == ("2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.999000Z")


async def test_a_full_disk_delays_them_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.groups._SECONDS", 0.001)
    disk = Disk()
    async with opened(tmp_path, disk) as log:
        groups = Groups(log, ManualClock(), bytes)
        malformed = Malformed(groups)
        await groups.start()
        disk.failing = True
        for fault in (Fault.NOT_HTTP, Fault.NOT_HTTP, Fault.HEAD_TIMEOUT):
            malformed.note(fault)
        await until(lambda: log.fault is not None)
        malformed.note(Fault.NOT_HTTP)
        disk.failing = False
        await until(lambda: not log.fault)
        await groups.stop()
    records = [Record.parse(line) for line in (tmp_path / "w" / "000000.jsonl").read_bytes().splitlines()]
    assert sum(record.count or 0 for record in records if record.code == "not_http") == 3
    assert sum(record.count or 0 for record in records if record.code == "head_timeout") == 1


class Ledger:
    """A log whose disk fails when it is told to."""

    def __init__(self) -> None:
        self.told: list[tuple[Group, int, asyncio.Future[bool]]] = []
        self.full = False
        self.kept = Counter[str]()

    def append(self, event: Event, group: Group) -> "asyncio.Future[bool]":
        if self.full:
            raise RecordUnavailable
        assert event == "malformed", group
        written: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.told.append((group, group.count, written))
        return written

    def settle(self, *, kept: bool) -> None:
        for group, count, written in self.told:
            self.kept[group.code or ""] += count if kept else 0
            written.set_result(kept)
        self.told.clear()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([*Fault, "write", "keep", "lose", "full", "room"]), max_size=40))
def test_whatever_the_disk_does_the_counts_add_up(steps: list[str]) -> None:
    async def run() -> None:
        log, noted = Ledger(), Counter[str]()
        groups = Groups(log, ManualClock(), bytes)  # type: ignore[arg-type]
        malformed = Malformed(groups)
        for step in steps:
            match step:
                case Fault():
                    malformed.note(step)
                    noted[step] += 1
                case "write":
                    groups._write()
                case "keep" | "lose":
                    log.settle(kept=step == "keep")
                case _:
                    log.full = step == "full"
            await asyncio.sleep(0)
            held = Counter({kind.code: group.count for kind, group in groups._groups.items()})
            for group, count, _ in log.told:
                held[group.code or ""] += count
            assert log.kept + held == noted
        assert malformed.counts == {fault.value: noted[fault] for fault in Fault}

    asyncio.run(run())


def test_lines_of_before_keep_their_bytes() -> None:
    trace = Group(id="rec-1", code="not_http", status=400, started_at="a", last_at="b", count=2)
    line = trace.line("malformed", writer="w", seq=0, prev=genesis("w"), at="c")
    record = Record.parse(line)
    assert record.canonical() == line
    assert (record.count, record.last_at, record.tenant) == (2, "b", None)
    old = record.model_copy(update={"event": "outcome", "count": None, "last_at": None}).canonical()
    assert b"count" not in old
    assert b"last_at" not in old
    assert Record.parse(old).canonical() == old
