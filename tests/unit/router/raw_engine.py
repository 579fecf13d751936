"""An engine whose every byte is chosen by the test, on a TCP port or a unix socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

Reply = Callable[[dict[str, Any], asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Engine:
    """A tiny HTTP/1.1 server; ``reply`` writes the raw response."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.requests: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.closed = 0
        self.url = ""
        self.tasks: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                length = next(int(x.split(":")[1]) for x in lines if x.lower().startswith("content-length"))
                body = await reader.readexactly(length)
                self.requests.append(head)
                self.bodies.append(body)
                await self.reply(orjson.loads(body), writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.closed += 1
            writer.close()


@asynccontextmanager
async def engine(reply: Reply, socket: Path | None = None) -> AsyncIterator[Engine]:
    found = Engine(reply)
    if socket is None:
        server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
        found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    else:
        server = await asyncio.start_unix_server(found.serve, socket)
        found.url = f"http+unix://{quote(str(socket), safe='')}"
    found.server = server
    try:
        yield found
    finally:
        server.close()
        for task in list(found.tasks):  # those that were told to hang
            task.cancel()
        await asyncio.gather(*found.tasks, return_exceptions=True)


def whole(value: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(value) + value


def pieces(*parts: bytes, end: bool = True) -> bytes:
    """A chunked response, one HTTP chunk a part."""
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked + (b"0\r\n\r\n" if end else b"")


def raw(data: bytes, *, hang: bool = False, close: bool = False) -> Reply:
    """Writes ``data`` whatever is asked."""

    async def reply(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if hang:
            await asyncio.Event().wait()
        if close:
            writer.close()

    return reply
