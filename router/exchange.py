"""One HTTP request and its response, on plain ASGI."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from router.errors import ClientGone, RequestTimeout, RequestTooLarge
from router.headers import Headers
from router.limits import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json")


class Exchange:
    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.headers = Headers(scope["headers"])
        self._receive = receive
        self._send = send
        self.started = False
        """Whether the response's status is on its way and cannot change any more."""

    async def body(self, limits: Limits) -> bytes:
        """The request body. Raises RequestTooLarge, RequestTimeout, ClientGone."""
        announced = self.headers.every("content-length")
        if announced and announced[0].isdecimal() and int(announced[0][:20]) > limits.body_bytes:
            raise RequestTooLarge(f"the body is larger than {limits.body_bytes} bytes")
        try:
            async with asyncio.timeout(limits.body_seconds):
                return await self._read(limits.body_bytes)
        except TimeoutError:
            raise RequestTimeout from None

    async def _read(self, limit: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            size += len(piece)
            if size > limit:
                raise RequestTooLarge(f"the body is larger than {limit} bytes")
            pieces.append(piece)
            if not message.get("more_body", False):
                return b"".join(pieces)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Stops what runs inside when the client hangs up, and leaves with ClientGone."""
        work = asyncio.current_task()
        gone = False

        async def watch() -> None:
            nonlocal gone
            while (await self._receive())["type"] != "http.disconnect":
                pass
            gone = True
            if work is not None:
                work.cancel()

        watcher = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            if not gone or work is None:
                raise
            work.uncancel()
            raise ClientGone from None
        finally:
            watcher.cancel()

    async def respond(self, status: int, body: bytes, headers: RawHeaders) -> None:
        """A whole JSON response (unless ``headers`` say another content type)."""
        kind = [] if any(name == b"content-type" for name, _ in headers) else [_JSON]
        length = (b"content-length", str(len(body)).encode("ascii"))
        await self._start(status, [*kind, length, *headers])
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, headers: RawHeaders) -> None:
        """The head of an event stream."""
        # Proxies that buffer (nginx) would turn a stream into one late block.
        fixed = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        ]
        await self._start(200, [*fixed, *headers])

    async def push(self, piece: bytes) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self, piece: bytes) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": False})

    async def _start(self, status: int, headers: RawHeaders) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
