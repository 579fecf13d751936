"""A whole router on real sockets, and a client that sends whatever bytes it is given."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from router import serving
from router.limits import Limits, Timeouts
from router.records import Record
from router.testing import completion, stream
from router.upstream import EnginePool
from tests.unit.router.driving import QUESTION, House, until
from tests.unit.router.raw_engine import Engine, Reply, engine, pieces, whole

LIMIT = 1 << 20
"""Bytes of a body that these routers take."""
Bytes = bytes | Sequence[bytes]


async def honest(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    if body["stream"]:
        writer.write(pieces(*stream(body, "fine")))
    else:
        writer.write(whole(orjson.dumps(completion(body, "fine"))))


@dataclass(frozen=True)
class Said:
    """One response, as it stood on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        """The error's; None for an answer, and for what never reached the application."""
        try:
            return str(orjson.loads(self.body)["error"]["code"])
        except (orjson.JSONDecodeError, KeyError):
            return None

    @property
    def events(self) -> list[Any]:
        data = [line[6:] for line in self.body.split(b"\n\n") if line.startswith(b"data: ")]
        return ["[DONE]" if line == b"[DONE]" else orjson.loads(line) for line in data]

    @property
    def record(self) -> str:
        return self.headers["x-tenon-record"]


class Rough:
    """A router with bank_a's ``assistant``, in front of one engine."""

    def __init__(self, house: House, behind: Engine, port: int, secret: str) -> None:
        self.house, self.engine, self.port, self.secret = house, behind, port, secret

    def request(
        self,
        body: bytes | None = None,
        *headers: bytes,
        path: bytes = b"/v1/chat/completions",
        key: bool = True,
        close: bool = True,
        length: bool = True,
        **changes: Any,
    ) -> bytes:
        """A request's bytes: the usual question with ``changes``, or any body."""
        text = orjson.dumps(QUESTION | changes) if body is None else body
        lines = [b"POST %b HTTP/1.1" % path, b"Host: router", *headers]
        if key:
            lines.append(b"Authorization: Bearer " + self.secret.encode())
        if close:
            lines.append(b"Connection: close")
        if length:
            lines.append(b"Content-Length: %d" % len(text))
        return b"\r\n".join([*lines, b"", text])

    async def say(self, data: Bytes, *, seconds: float = 10) -> list[Said]:
        """Send it and read all responses until the router closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(seconds):
                sending = asyncio.create_task(_send(writer, [data] if isinstance(data, bytes) else data))
                try:
                    return responses(await _all(reader))
                finally:
                    sending.cancel()
        finally:
            writer.close()

    async def ask(self, data: bytes) -> Said:
        """For requests that have exactly one response."""
        (said,) = await self.say(data)
        return said

    async def at_rest(self) -> None:
        """Nothing is held any more: no lease, no place in a queue, no request under way."""
        pipeline = self.house.app._pipeline
        await until(lambda: not pipeline.drain.busy)
        assert pipeline.attempts.placement.leases.engines() == {}
        assert pipeline.attempts.queue.waiting == 0

    async def outcome(self, said: Said) -> Record:
        """The one record of a response; :meth:`at_rest` beside it."""
        await self.at_rest()
        records = [record for record in self.house.records() if record.id == said.record]
        (found,) = [record for record in records if record.event == "outcome"]
        assert records[-1] == found
        return found

    async def counted(self, code: str | None) -> int:
        """How often a refusal was counted that has no record of its own; :meth:`at_rest` beside it."""
        await self.at_rest()
        await self.house.next_second()
        counted = [each for each in self.house.records() if (each.event, each.code) == ("refused", code)]
        assert {(each.tenant, each.key) for each in counted} == {(None, None)}
        return sum(each.count or 0 for each in counted)

    def outcomes(self) -> list[Record]:
        return [record for record in self.house.records() if record.event == "outcome"]


@asynccontextmanager
async def rough(
    folder: Path, reply: Reply = honest, *, limits: Limits | None = None, **timeouts: float
) -> AsyncIterator[Rough]:
    async with engine(reply) as behind:
        house = House(
            folder,
            engines=EnginePool(Timeouts(**timeouts)),
            limits=limits or Limits(body_bytes=LIMIT, body_seconds=5, answer_bytes=LIMIT),
        )
        house.scene.engine(url=behind.url)
        secret = house.scene.serve("bank_a")
        house.scene.serve("retail_b", model="cashier")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = serving.server(house.app, house.app.drain, seconds=5, log_config=None)
            running = asyncio.create_task(server.serve(sockets=[listener]))
            await until(lambda: server.started)
            await house.publish()
            try:
                yield Rough(house, behind, listener.getsockname()[1], secret)
            finally:
                server.should_exit = True
                await running


async def _send(writer: asyncio.StreamWriter, parts: Sequence[bytes]) -> None:
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
    except ConnectionError:  # the router has said what it had to say
        pass


async def _all(reader: asyncio.StreamReader) -> bytes:
    found = b""
    try:
        while part := await reader.read(1 << 16):
            found += part
    except ConnectionError:
        pass
    return found


def responses(data: bytes) -> list[Said]:
    """Split what a server wrote, by the lengths it announced."""
    found: list[Said] = []
    while data:
        head, found_end, data = data.partition(b"\r\n\r\n")
        assert found_end, head
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(first.split()[1])
        if headers.get("transfer-encoding") == "chunked":
            body, data = _unchunked(data)
        elif "content-length" in headers:
            length = int(headers["content-length"])
            body, data = data[:length], data[length:]
            assert len(body) == length
        elif status == 100:
            continue
        else:
            body, data = data, b""
        found.append(Said(status, headers, body))
    return found


def _unchunked(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body += data[:length]
        data = data[length + 2 :]
        if not length:
            break
    return body, data


def leaks(said: Said, *words: str) -> list[str]:
    """Those of ``words`` that a response shows anywhere."""
    shown = said.body + str(said.headers).encode()
    return [word for word in words if word.encode() in shown]
