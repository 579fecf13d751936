"""Completions that their connection answers itself: the same words as through ASGI, in fewer writes."""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from router import serving
from router.direct import Direct
from router.serving import Connection
from router.testing import stream
from tests.unit.router.driving import until
from tests.unit.router.raw_engine import pieces
from tests.unit.router.test_network import ASKING, Running, honest, running


def asking(secret: str, target: bytes = b"/v1/chat/completions", **more: object) -> bytes:
    body = orjson.dumps(ASKING | more)
    head = b"POST %b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n"
    return head % (target, secret.encode(), len(body)) + body


class Holding:
    """An engine that answers each question once it may (``go_on``), of a stream the first words before."""

    def __init__(self) -> None:
        self.go_on: list[asyncio.Event] = []

    async def __call__(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        hold = asyncio.Event()
        self.go_on.append(hold)
        if body["stream"]:
            first, *rest = stream(body, ["once"])
            writer.write(pieces(first, end=False))
            await hold.wait()
            writer.write(pieces(*rest).partition(b"\r\n\r\n")[2])
        else:
            await hold.wait()
            await honest(body, writer)


@asynccontextmanager
async def busy(folder: Path) -> AsyncIterator[tuple[Running, Holding]]:
    """A router with a request under way, so that a drain goes on."""
    behind = Holding()
    async with running(folder, behind) as router:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(asking(router.secret))
        await until(lambda: len(behind.go_on) == 1)
        yield router, behind
        behind.go_on[0].set()
        head, _ = await answer(reader)
        assert head.startswith(b"http/1.1 200")
        assert (CLOSE in head) == router.house.app.drain.under_way
        writer.close()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What is left until the router closes the connection, and not for its idleness (after 5 s)."""
    async with asyncio.timeout(4):
        return await reader.read()


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


@pytest.mark.parametrize("more", [{}, {"model": "nothing"}, {"n": 0}])
async def test_directly_and_through_asgi_a_client_reads_the_same(
    tmp_path: Path, more: dict[str, object]
) -> None:
    async with running(tmp_path, honest) as router:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        found = []
        for target in (b"/v1/chat/completions", b"/v1/chat/completions?through=asgi"):
            await router.house.next_second()
            writer.write(asking(router.secret, target, **more))
            head, body = await answer(reader)
            said = orjson.loads(body)
            said.pop("id", None)
            found.append((head.split(b"\r\n")[0], sorted(line[:12] for line in head.split(b"\r\n")), said))
        writer.close()
        assert found[0] == found[1]


async def test_headers_with_line_breaks_never_leave(tmp_path: Path) -> None:
    class Client:
        class server_state:  # noqa: N801
            default_headers: tuple[()] = ()

        wire = None

    direct = Direct(Client(), "/", [], keep_alive=True, expects=False)  # type: ignore[arg-type]
    for value in (b"a\r\nset-cookie: x", b"a\n", b"\r", b"\0"):
        with pytest.raises(ValueError, match="line break"):
            direct._headed(200, [(b"x-tenon-engine", value)])


TARGETS = [b"/v1/chat/completions", b"/v1/chat/completions?through=asgi"]
CLOSE = b"\r\nconnection: close\r\n"


@pytest.mark.parametrize("target", TARGETS)
async def test_who_comes_in_a_drain_is_told_that_the_connection_ends(tmp_path: Path, target: bytes) -> None:
    """Else a client behind a balancer of connections tries again on the same one, at the same router."""
    async with busy(tmp_path) as (router, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(asking(router.secret, target, model="nothing"))
        assert CLOSE not in (await answer(reader))[0]
        router.server.drain()
        writer.write(asking(router.secret, target))
        head, body = await answer(reader)
        assert head.startswith(b"http/1.1 503")
        assert b'"router_draining"' in body
        assert CLOSE in head
        assert await ended(reader) == b""
        writer.close()


@pytest.mark.parametrize("target", TARGETS)
async def test_what_ends_in_a_drain_ends_its_connection(tmp_path: Path, target: bytes) -> None:
    async with busy(tmp_path) as (router, behind):
        whole, first = await asyncio.open_connection("127.0.0.1", router.port)
        events, second = await asyncio.open_connection("127.0.0.1", router.port)
        first.write(asking(router.secret, target))
        second.write(asking(router.secret, target, stream=True))
        await events.readuntil(b"once")
        await until(lambda: len(behind.go_on) == 3)
        router.server.drain()
        for hold in behind.go_on[1:]:
            hold.set()
        head, _ = await answer(whole)
        assert head.startswith(b"http/1.1 200")
        assert CLOSE in head
        assert await ended(whole) == b""
        assert (await ended(events)).endswith(b"[DONE]\n\n\r\n0\r\n\r\n")
        first.close()
        second.close()


async def test_pipelined_requests_that_a_drain_meets_are_all_answered(tmp_path: Path) -> None:
    async with busy(tmp_path) as (router, behind):
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(asking(router.secret) * 2)
        await until(lambda: len(behind.go_on) == 2)
        router.server.drain()
        behind.go_on[1].set()
        heads = [(await answer(reader))[0] for _ in range(2)]
        assert [head[:12] for head in heads] == [b"http/1.1 200", b"http/1.1 503"]
        assert [CLOSE in head for head in heads] == [False, True]
        assert await ended(reader) == b""
        writer.close()


async def test_a_long_question_in_a_drain_is_read_to_its_end(tmp_path: Path) -> None:
    """A socket that is closed with bytes unread is reset, and its client may lose the answer with it."""
    async with busy(tmp_path) as (router, _):
        router.server.drain()
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(asking(router.secret, user="x" * 15_000_000))
        await writer.drain()
        head, _ = await answer(reader)
        assert head.startswith(b"http/1.1 503")
        assert CLOSE in head
        assert await ended(reader) == b""
        writer.close()


async def test_a_connection_without_requests_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Connection.connection_made

    def soon(self: Connection, transport: asyncio.Transport) -> None:
        self.timeout_keep_alive = 0.5  # type: ignore[assignment]
        begun(self, transport)

    monkeypatch.setattr(Connection, "connection_made", soon)
    async with running(tmp_path, honest) as router:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        await asyncio.sleep(0.25)  # idle counts from the last answer, not from here
        writer.write(asking(router.secret))
        assert (await answer(reader))[0].startswith(b"http/1.1 200")
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert loop.time() - began > 0.45
        writer.close()


async def test_where_connections_are_many_idle_ones_are_closed_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "CROWDED_SECONDS", 0.3)
    begun = Connection.connection_made

    def soon(self: Connection, transport: asyncio.Transport) -> None:
        self.timeout_keep_alive = 1.0  # type: ignore[assignment]
        begun(self, transport)

    monkeypatch.setattr(Connection, "connection_made", soon)
    loop = asyncio.get_running_loop()
    async with running(tmp_path, honest) as router:
        for most, least, longest in ((1, 0.95, 5.0), (0, 0.25, 0.9)):
            monkeypatch.setattr(serving, "crowd", lambda most=most: most)
            reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
            writer.write(asking(router.secret))
            assert (await answer(reader))[0].startswith(b"http/1.1 200")
            began = loop.time()
            assert await asyncio.wait_for(reader.read(), 5) == b""
            assert least < loop.time() - began < longest
            writer.close()


@pytest.mark.parametrize(
    ("files", "most"), [(1024, 512), (1 << 20, 10_000), (resource.RLIM_INFINITY, 10_000)]
)
def test_connections_are_many_by_the_files_that_may_be_open(
    monkeypatch: pytest.MonkeyPatch, files: int, most: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert serving.crowd() == most


async def test_a_connection_answers_in_one_task_and_leaves_none_behind(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with running(tmp_path, honest) as router:
        others = asyncio.all_tasks() - before
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        found = []
        for _ in range(3):
            writer.write(asking(router.secret))
            assert (await answer(reader))[0].startswith(b"http/1.1 200")
            turns = [
                task
                for task in asyncio.all_tasks() - before - others
                if "_take_turns" in repr(task.get_coro())
            ]
            assert len(turns) == 1
            found += turns
        assert found[0] is found[1] is found[2]
        writer.write(asking(router.secret) * 3)  # pipelined: in their order, still in that task
        for _ in range(3):
            assert (await answer(reader))[0].startswith(b"http/1.1 200")
        assert not found[0].done()
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(found[0], 5)
