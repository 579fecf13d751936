"""The connections to engines, byte by byte: what is reused, what is dropped, and what is never believed."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from router.errors import EngineFailed, EngineInterrupted, EngineTimeout, EngineUnavailable, NothingSent
from router.limits import Timeouts
from router.testing import usage_chunk
from router.upstream import EnginePool
from router.upstream.address import address_of
from router.upstream.answer import HIGH_WATER
from router.upstream.connection import _STALE_SECONDS, MOST_HEAD_BYTES
from tests.unit.router.driving import until
from tests.unit.router.raw_engine import HEAD, Engine, Reply, engine, pieces, raw, whole

OK = whole(b"{}")


@asynccontextmanager
async def pool(
    reply: Reply, path: Path | None = None, **timeouts: float
) -> AsyncIterator[tuple[EnginePool, Engine]]:
    async with engine(reply, path) as behind:
        engines = EnginePool(Timeouts(**timeouts))
        await engines.start()
        try:
            yield engines, behind
        finally:
            await engines.stop()


async def fetch(engines: EnginePool, url: str) -> bytes:
    answer = await engines.ask(f"{url}/v1/chat/completions", b"{}")
    found = b""
    try:
        while piece := await answer.read():
            found += piece
    finally:
        await answer.close()
    return found


def script(*replies: bytes, then_close: bool = False) -> Reply:
    """The first reply to the first request, and so on."""
    left = list(replies)

    async def reply(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0))
        await writer.drain()
        if then_close and not left:
            writer.close()

    return reply


async def test_connections_are_reused_and_redirects_are_not_followed() -> None:
    async with pool(raw(OK)) as (engines, behind):
        assert [await fetch(engines, behind.url) for _ in range(3)] == [b"{}"] * 3
        assert behind.connections == 1
        behind.reply = raw(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
        answer = await engines.ask(behind.url, b"{}")
        assert answer.status == 307
        await answer.close()
        assert behind.requests[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:")
        assert behind.requests[-1].startswith(b"POST / HTTP/1.1\r\n")


async def test_a_request_carries_its_trace_and_the_next_one_does_not() -> None:
    async with pool(raw(OK)) as (engines, behind):
        for trace in (b"00-1-2-01", b""):
            answer = await engines.ask(behind.url, b"{}", trace)
            assert await answer.read() == b"{}"
            await answer.close()
        assert b"\r\ntraceparent: 00-1-2-01\r\n" in behind.requests[0]
        assert b"traceparent" not in behind.requests[1]


async def test_answers_at_the_same_time_never_share_a_connection() -> None:
    async def echo(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            writer.write(b"%x\r\n%b\r\n" % (len(body["me"]), body["me"].encode()))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with pool(echo) as (engines, behind):

        async def one(me: str) -> None:
            answer = await engines.ask(behind.url, b'{"me":"%b"}' % me.encode())
            found = b""
            while piece := await answer.read():
                found += piece
            await answer.close()
            assert found == me.encode() * 5

        for _ in range(3):
            await asyncio.gather(*(one(f"caller {n}") for n in range(20)))
        assert behind.connections == 20
        assert engines.connections == 20


@pytest.mark.parametrize("cut", range(1, len(pieces(b"one", b"two"))))
async def test_an_answer_may_be_cut_anywhere(cut: int) -> None:
    data = pieces(b"one", b"two")

    async def slow(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(data[:cut])
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(data[cut:])

    async with pool(slow) as (engines, behind):
        assert await fetch(engines, behind.url) == b"onetwo"
        assert await fetch(engines, behind.url) == b"onetwo"
        assert behind.connections == 1


async def test_a_connection_that_the_engine_closed_while_it_was_free_is_not_noticed_outside() -> None:
    async with pool(script(OK, then_close=True)) as (engines, behind):
        assert await fetch(engines, behind.url) == b"{}"
        await until(lambda: engines.connections == 0)
        behind.reply = raw(OK)
        assert await fetch(engines, behind.url) == b"{}"
        assert (behind.connections, len(behind.requests)) == (2, 2)


async def test_a_connection_that_closes_as_it_is_used_again_is_asked_anew_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.upstream.connection._STALE_SECONDS", 5)
    async with pool(raw(OK)) as (engines, behind):
        assert await fetch(engines, behind.url) == b"{}"
        behind.reply = raw(b"", close=True)  # as a server whose patience with idle connections just ended
        with pytest.raises(EngineUnavailable):
            await fetch(engines, behind.url)
        assert (behind.connections, len(behind.requests)) == (2, 3)


async def test_an_engine_that_was_at_work_when_a_used_connection_broke_is_not_asked_anew() -> None:
    async def works(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * _STALE_SECONDS)
        writer.transport.abort()

    async with pool(raw(OK)) as (engines, behind):
        assert await fetch(engines, behind.url) == b"{}"
        behind.reply = works
        with pytest.raises(EngineUnavailable) as caught:
            await fetch(engines, behind.url)
        assert not isinstance(caught.value, NothingSent)
        assert (behind.connections, len(behind.requests)) == (1, 2)


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_engine_that_is_gone_with_a_used_connection_was_sent_something(
    at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.upstream.connection._STALE_SECONDS", 5 if at_once else 0)

    async def dies(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        behind.server.close()
        writer.transport.abort()

    async with pool(raw(OK)) as (engines, behind):
        assert await fetch(engines, behind.url) == b"{}"
        behind.reply = dies
        with pytest.raises(EngineUnavailable) as caught:
            await fetch(engines, behind.url)
        assert not isinstance(caught.value, NothingSent)
        with pytest.raises(NothingSent):
            await fetch(engines, behind.url)


async def test_a_connection_that_breaks_after_sending_is_no_reason_to_retry() -> None:
    async with pool(raw(b"", close=True)) as (engines, behind):
        with pytest.raises(EngineUnavailable) as caught:
            await fetch(engines, behind.url)
        assert not isinstance(caught.value, NothingSent)
        assert len(behind.requests) == 1


async def test_one_that_said_a_word_before_it_broke_is_never_asked_again() -> None:
    async with pool(raw(OK)) as (engines, behind):
        await fetch(engines, behind.url)
        behind.reply = raw(b"HTTP/1.1 2", close=True)
        with pytest.raises(EngineUnavailable):
            await fetch(engines, behind.url)
        assert len(behind.requests) == 2


async def test_a_refused_connection_sent_nothing() -> None:
    async with pool(raw(b"")) as (engines, _):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        for url in (f"http://127.0.0.1:{port}", "http://", "ftp://x/", "http://a\r\nb/"):
            with pytest.raises(NothingSent):
                await fetch(engines, url)


@pytest.mark.parametrize(
    "said",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
        b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 9 + OK,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * MOST_HEAD_BYTES,
        pieces(b"{}", end=False) + b"not a length\r\n",
    ],
)
async def test_garbage_is_a_failed_engine_and_the_end_of_its_connection(said: bytes) -> None:
    async with pool(raw(said, hang=True)) as (engines, behind):
        with pytest.raises(EngineFailed):
            await fetch(engines, behind.url)
        await until(lambda: engines.connections == 0)


async def test_cut_bodies() -> None:
    for cut in (HEAD + b"Content-Length: 100\r\n\r\n{", pieces(b"data: x\n\n", end=False)):
        async with pool(raw(cut, close=True)) as (engines, behind):
            with pytest.raises(EngineInterrupted):
                await fetch(engines, behind.url)


async def test_a_body_without_a_length_is_never_known_to_be_whole() -> None:
    async with pool(raw(HEAD + b"\r\n{}", close=True)) as (engines, behind):
        with pytest.raises(EngineInterrupted):
            await fetch(engines, behind.url)


async def test_an_interim_answer_is_passed_over() -> None:
    async with pool(raw(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK)) as (engines, behind):
        assert [await fetch(engines, behind.url) for _ in range(2)] == [b"{}"] * 2
        assert behind.connections == 1


@pytest.mark.parametrize("more", [whole(b'{"of":"somebody else"}'), b"x", OK[:9], whole(b"{}")[:-1]])
async def test_bytes_after_the_end_are_never_the_next_answer(more: bytes) -> None:
    async with pool(raw(OK + more)) as (engines, behind):
        assert [await fetch(engines, behind.url) for _ in range(3)] == [b"{}"] * 3
        assert behind.connections == 3


async def test_bytes_between_two_requests_cost_the_connection() -> None:
    writers: list[asyncio.StreamWriter] = []

    async def reply(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(OK)

    async with pool(reply) as (engines, behind):
        await fetch(engines, behind.url)
        writers[0].write(whole(b'{"of":"somebody else"}'))
        await until(lambda: engines.connections == 0)
        assert await fetch(engines, behind.url) == b"{}"
        assert behind.connections == 2


async def test_connection_close_is_obeyed() -> None:
    async with pool(raw(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))) as (engines, behind):
        assert [await fetch(engines, behind.url) for _ in range(2)] == [b"{}"] * 2
        assert behind.connections == 2


async def test_an_answer_kept_too_long_reads_nothing_of_the_next() -> None:
    async with pool(script(OK, whole(b'{"of":"somebody else"}'))) as (engines, behind):
        first = await engines.ask(behind.url, b"{}")
        assert await first.read() == b"{}"
        await first.close()
        second = await engines.ask(behind.url, b"{}")
        assert await first.read() == b""
        await first.close()
        assert await second.read() == b'{"of":"somebody else"}'
        assert behind.connections == 1
        await second.close()


async def test_a_stream_given_up_before_its_http_end_is_reused_once_that_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.upstream.connection._LINGER_SECONDS", 5)
    given_up = asyncio.Event()

    async def late(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(pieces(b"data: [DONE]\n\n", end=False))
        await given_up.wait()
        writer.write(b"0\r\n\r\n")

    async with pool(late) as (engines, behind):
        for _ in range(3):
            given_up.clear()
            answer = await engines.ask(behind.url, b"{}")
            assert await answer.read() == b"data: [DONE]\n\n"
            await answer.close()
            assert engines.free == 0
            given_up.set()
            await until(lambda: engines.free == 1)
        assert behind.connections == 1


async def test_a_stream_whose_http_end_does_not_come_is_cut() -> None:
    async with pool(raw(pieces(b"data: [DONE]\n\n", end=False), hang=True)) as (engines, behind):
        answer = await engines.ask(behind.url, b"{}")
        await answer.read()
        await answer.close()
        await until(lambda: engines.connections == 0)


async def test_patience_ends() -> None:
    async with pool(raw(b"", hang=True), first_byte=0.02) as (engines, behind):
        with pytest.raises(EngineTimeout):
            await fetch(engines, behind.url)
        await until(lambda: engines.connections == 0)
    silent = raw(pieces(usage_chunk({"model": "m"}), end=False), hang=True)
    async with pool(silent, between_chunks=0.02) as (engines, behind):
        with pytest.raises(EngineTimeout):
            await fetch(engines, behind.url)
        await until(lambda: behind.closed == 1 or engines.connections == 0)


async def test_patience_starts_anew_with_every_token() -> None:
    async def steady(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _number in range(8):
            await asyncio.sleep(0.03)
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with pool(steady, between_chunks=0.15, first_byte=0.15) as (engines, behind):
        assert await fetch(engines, behind.url) == b"x" * 8


async def test_a_slow_reader_holds_the_engine_back_and_not_in_memory() -> None:
    sent = 0

    async def flood(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _number in range(400):
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()
            sent += 65536
        writer.write(b"0\r\n\r\n")

    async with pool(flood, first_byte=0.2, between_chunks=0.2) as (engines, behind):
        answer = await engines.ask(behind.url, b"{}")
        before = -1
        while before != sent:  # until the engine cannot send more
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 400 * 65536
        first = await answer.read()
        assert len(first) <= HIGH_WATER + 300_000  # what one read of the socket may add
        rest = 0
        while piece := await answer.read():
            rest += len(piece)
        assert len(first) + rest == 400 * 65536
        await answer.close()


async def test_free_connections_are_not_kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.upstream.pool._KEEP_ALIVE", 0.01)
    monkeypatch.setattr("router.upstream.pool._SWEEP_SECONDS", 0.01)
    async with pool(raw(OK)) as (engines, behind):
        await fetch(engines, behind.url)
        await until(lambda: engines.connections == 0)
        await fetch(engines, behind.url)
        assert behind.connections == 2


async def test_before_the_start_and_after_the_stop_nothing_is_reached() -> None:
    async with engine(raw(OK)) as behind:
        engines = EnginePool(Timeouts())
        with pytest.raises(EngineUnavailable):
            await engines.ask(behind.url, b"{}")
        await engines.start()
        await fetch(engines, behind.url)
        await engines.stop()
        await until(lambda: behind.closed == 1)
        with pytest.raises(EngineUnavailable):
            await engines.ask(behind.url, b"{}")


async def test_stopping_ends_what_is_under_way() -> None:
    async with pool(raw(pieces(b"a", end=False), hang=True)) as (engines, behind):
        answer = await engines.ask(behind.url, b"{}")
        assert await answer.read() == b"a"
        reading = asyncio.create_task(answer.read())
        await asyncio.sleep(0)
        await engines.stop()
        with pytest.raises(EngineInterrupted):
            await reading


def test_addresses() -> None:
    found = address_of("https://engine:8443/v1/completions?x=1")
    assert (found.origin.host, found.origin.port, found.origin.tls) == ("engine", 8443, True)
    assert found.head.startswith(b"POST /v1/completions?x=1 HTTP/1.1\r\nHost: engine:8443\r\n")
    assert found.head.endswith(b"Content-Length: ")
    six = address_of("http://[::1]:9/")
    assert (six.origin.host, six.origin.port) == ("::1", 9)
    local = address_of("http+unix://%2Frun%2FEngine.sock/v1/chat/completions")
    assert local.origin.socket == "/run/Engine.sock"
    assert b"\r\nHost: localhost\r\n" in local.head
    for bad in (
        "engine:80",
        "http://u:p@h/",
        "http://h/\u00e9",
        "http://h:99999999/",
        "file:///etc/passwd",
        "",
    ):
        with pytest.raises(ValueError, match=r"."):
            address_of(bad)
