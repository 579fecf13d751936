"""One HTTP request and its response, on plain ASGI."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from router.errors import ClientGone, RequestTimeout, RequestTooLarge
from router.headers import Headers
from router.limits import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
# Proxies that buffer (nginx) would turn a stream into one late block.
EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def typed(headers: RawHeaders) -> RawHeaders:
    """With a content type: JSON, unless they name another."""
    return headers if b"content-type" in dict(headers) else [JSON, *headers]


class Wire:
    """What ``router.serving`` knows of a client's connection and ASGI has no word for; in ``scope["state"]``.

    Without one (another ASGI server), a task per request has to listen for the client's hanging up: 30 µs.
    """

    __slots__ = ("gone", "on_gone", "whole")
    KEY = "tenon.wire"

    def __init__(self) -> None:
        self.whole = False
        """The last request that began has arrived with all its body."""
        self.gone = False
        self.on_gone: Callable[[], None] | None = None

    def cut(self) -> None:
        self.gone = True
        if self.on_gone is not None:
            self.on_gone()


class Exchange:
    __slots__ = ("_receive", "_send", "_wire", "headers", "started")

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.headers = Headers(scope["headers"])
        self._receive = receive
        self._send = send
        state = scope.get("state")
        self._wire: Wire | None = state.get(Wire.KEY) if state is not None else None
        self.started = False
        """Whether the response's status is on its way and cannot change any more."""

    def arrived(self, limits: Limits) -> bytes | None:
        """The request body if all of it is here; None: wait for it (:meth:`body`). Raises RequestTooLarge."""
        return None

    async def body(self, limits: Limits) -> bytes:
        """The request body. Raises RequestTooLarge, RequestTimeout, ClientGone."""
        self.check_announced(limits)
        if self._wire is not None and self._wire.whole:
            return await self._read(limits)  # all of it is here: there is nothing to wait for
        try:
            async with asyncio.timeout(limits.body_seconds):
                return await self._read(limits)
        except TimeoutError:
            raise RequestTimeout from None

    def check_announced(self, limits: Limits) -> None:
        """Before anything of the body is read. Raises RequestTooLarge."""
        announced = self.headers.every("content-length")
        if announced and announced[0].isdecimal():
            self.check_size(int(announced[0][:20]), limits)

    def check_size(self, size: int, limits: Limits) -> None:
        if size > limits.body_bytes:
            raise RequestTooLarge(f"the body is larger than {limits.body_bytes} bytes")

    async def _read(self, limits: Limits) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            size += len(piece)
            self.check_size(size, limits)
            if not message.get("more_body", False):
                return b"".join((*pieces, piece)) if pieces else piece
            pieces.append(piece)

    def connected(self) -> "Connected":
        """``async with`` it: stops what runs inside when the client hangs up, and leaves with ClientGone."""
        return Connected(self._wire, self._receive)

    async def respond(self, status: int, body: bytes, headers: RawHeaders) -> None:
        """A whole JSON response (unless ``headers`` say another content type)."""
        await self._start(status, [(b"content-length", b"%d" % len(body)), *typed(headers)])
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, headers: RawHeaders) -> None:
        """The head of an event stream."""
        await self._start(200, [*EVENTS, *headers])

    async def push(self, piece: bytes) -> None:
        """Returns once the client has taken most of what was pushed before."""
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self, piece: bytes) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": False})

    async def _start(self, status: int, headers: RawHeaders) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


class Connected:
    """Of :meth:`Exchange.connected`."""

    __slots__ = ("_gone", "_receive", "_watcher", "_wire", "_work")

    def __init__(self, wire: Wire | None, receive: Receive) -> None:
        self._wire = wire
        self._receive = receive
        self._gone = False
        self._work: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "asyncio.Task[Any] | None":
        """The task that is stopped then."""
        self._work = asyncio.current_task()
        if self._wire is None:
            self._watcher = asyncio.create_task(self._watch())
        elif self._wire.gone:
            self._work = None
            raise ClientGone
        else:
            self._wire.on_gone = self._leave
        return self._work

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wire is not None:
            self._wire.on_gone = None
        if self._watcher is not None:
            self._watcher.cancel()
        work = self._work
        if not self._gone or work is None:
            return
        if not isinstance(error, asyncio.CancelledError):
            # The end came before the cancellation was delivered: take it here, or a later await gets it.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        if work.uncancel() > 0:  # somebody else wants to stop this too
            raise asyncio.CancelledError
        raise ClientGone from None

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if not self._gone and self._work is not None:
            self._gone = True
            self._work.cancel()
