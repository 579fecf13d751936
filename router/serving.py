"""uvicorn with what it lacks for strangers: bounds on all that is no body, an end to clients that stall, and
no ear for offers to speak another protocol.

Also tells the application at once of a client that hung up (``router.exchange.Wire``), and drains.
"""

import asyncio
import resource
import time
from collections.abc import Callable, Collection
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from router.direct import Direct
from router.drain import Drain
from router.exchange import Wire
from router.malformed import Fault

if TYPE_CHECKING:
    from router.app import RouterApp

MOST_HEAD_BYTES = 64 << 10
"""Of all request headers, and of trailers and chunk extensions up to the next byte of a body. nginx and h11
stop at 32 and 16 KiB; llhttp never does."""
HEAD_SECONDS = 10.0
"""For a request's head to arrive, and for a new connection to say its first word (slow-loris)."""
STALL_SECONDS = 60.0
"""A client that takes nothing for so long has gone, whatever its TCP says; until then it holds a slot."""
CROWDED_SECONDS = 5.0
"""That a connection may idle where there are too many of them."""
_MOST_PATIENT = 10_000
_LENGTH = ("Content-Length", "Transfer-Encoding")
"""What llhttp's words name when it cannot tell where a body ends."""
_VERSIONS = ("1.1", "1.0")
"""llhttp also takes 0.9, where a proxy before this router may see another message."""
_MALFORMED = (
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 19\r\n\r\n"
    b"not an HTTP request"
)
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_WORDS = {400: _MALFORMED, 408: _TOO_SLOW, 431: _TOO_LARGE}


def crowd() -> int:
    """Connections from which on idle ones are closed soon: half of the files that the process may open, for
    it also needs some for its engines; and not more than 130 MB hold (13 KB each)."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_PATIENT if files == resource.RLIM_INFINITY else min(files // 2, _MOST_PATIENT)


class Joined(asyncio.Transport):
    """A transport that sends what is written in one round of the loop at once: uvicorn writes a head and a
    body apart, and uvloop makes a system call of each (13 % of a request's CPU time, and two wake-ups of its
    reader)."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []
        self.abort = transport.abort  # type: ignore[method-assign]
        self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]
        self.is_closing = transport.is_closing  # type: ignore[method-assign]
        self.pause_reading = transport.pause_reading  # type: ignore[method-assign]
        self.resume_reading = transport.resume_reading  # type: ignore[method-assign]

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(bytes(data))

    def send(self, data: bytes) -> None:
        """At once, behind what waits."""
        if self._waiting:
            self._waiting.append(data)
            self._flush()
        elif not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            if self._transport.is_closing():  # uvloop raises where asyncio is silent
                return
            self._transport.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))


class Connection(HttpToolsProtocol):
    """A client's connection. Completions it answers itself (``router.direct``), all else through ASGI."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.wire = Wire()
        super().__init__(config, server_state, {**app_state, Wire.KEY: self.wire}, _loop)
        self._app: RouterApp = self.app
        self._direct: Collection[bytes] = self._app.direct
        self.send: Callable[[bytes], None]
        self._due: Direct | None = None
        self._turns: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None
        """What the task of this connection waits on between two completions."""
        self._in_head = True
        self._bare_bytes = 0
        """Since a head began, or since the last byte of a body."""
        self._head_since = self._idle_since = self.loop.time()
        self._between = 0.0
        """Seconds between two looks."""
        self._look_timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        joined = Joined(transport, self.loop)
        self.send = joined.send
        super().connection_made(joined)
        self._between = min(HEAD_SECONDS, CROWDED_SECONDS, self.timeout_keep_alive)
        self._look_timer = self.loop.call_later(self._between, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._look_timer, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self.wire.cut()
        self._wake()

    def data_received(self, data: bytes) -> None:
        # Up to the bound, and the rest only if a head ended there or a body went on: it may be all body.
        room = MOST_HEAD_BYTES - self._bare_bytes
        self._bare_bytes += len(data)
        if len(data) <= room:
            self._parse(data)
            return
        self._parse(data[:room] if room > 0 else b"")
        if self._bare_bytes < len(data):
            self._bare_bytes += len(data) - room
            self._parse(data[room:])
        elif not self.transport.is_closing():
            self._refuse(Fault.HEAD_TOO_LARGE if self._in_head else Fault.TRAILERS_TOO_LARGE)

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = self._without_offer() + data[offer.args[0] :]
            except httptools.HttpParserError as error:
                unclear = any(field in str(error) for field in _LENGTH)
                self._refuse(Fault.AMBIGUOUS_LENGTH if unclear else Fault.NOT_HTTP)
                return
            else:
                return

    def _without_offer(self) -> bytes:
        """An offer to speak another protocol may be ignored (RFC 9110, 7.8), but llhttp stops at it and would
        take the body behind it for the next request. So the head is read again, without the offer."""
        version = self.parser.get_http_version().encode("ascii")
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _refuse(self, fault: Fault) -> None:
        """What came is no request. One that is whole already keeps its answer, and loses the connection."""
        if self._refused:  # more of the same
            return
        self._refused = True
        self._app.malformed.note(fault)
        words = _WORDS[fault.status]
        cycle: Any = self.cycle
        if cycle is None or cycle.response_complete:
            self.transport.write(words)
        elif not cycle.more_body:
            cycle.keep_alive = False
            return
        elif not self.pipeline and not (cycle.started if type(cycle) is Direct else cycle.response_started):
            self.transport.write(words)
        self.transport.close()

    def on_message_begin(self) -> None:
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self.wire.whole = False
        if not self._in_head:
            self._in_head = True
            self._bare_bytes = 0
            self._head_since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:  # a trailer: never a header (RFC 9110, 6.5.1), and of no use here
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("no proxy")  # answered 400
            return  # and comes again without it
        self._in_head = False
        self._bare_bytes = 0
        version = self.parser.get_http_version()
        if version == "1.1" and self.url in self._direct and self.parser.get_method() == b"POST":
            self._begin()
        elif version not in _VERSIONS:
            raise ValueError("neither HTTP/1.1 nor HTTP/1.0")  # answered 400
        else:
            url, headers, expects = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.headers, self.expect_100_continue = url, headers, expects
            self.scope["headers"] = headers
            super().on_headers_complete()
        if self._app.drain.under_way:
            self.end()

    def _begin(self) -> None:
        before: Any = self.cycle
        self.cycle = cycle = Direct(  # type: ignore[assignment]
            self,
            self.url.decode("ascii"),
            self.headers,
            keep_alive=self.parser.should_keep_alive(),
            expects=self.expect_100_continue,
        )
        if before is None or before.response_complete:
            self._start(cycle)
        else:  # its turn comes after the answer to the one before
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]

    def _start(self, exchange: Direct) -> None:
        self._due = exchange
        if self._idle is not None:
            self.tasks.add(self._turns)  # type: ignore[arg-type]
            self._wake()
        elif self._turns is None:
            self._turns = self.loop.create_task(self._take_turns())
            self.tasks.add(self._turns)
        # else it is ending the answer before, and looks for what is due after that

    async def _take_turns(self) -> None:
        """One task for all completions of a connection: to make, register and end one for each was 5 % of a
        request. Who looks at ``tasks`` (a stop) finds it there while it answers."""
        task = asyncio.current_task()
        assert task is not None
        try:
            while (exchange := self._due) is not None:
                self._due = None
                await exchange.run(self.app)
                if task.cancelling() or self.wire.gone:  # what is left of a cancellation is nobody else's
                    return
                if self._due is None:
                    self.tasks.discard(task)
                    self._idle = self.loop.create_future()
                    await self._idle
        finally:
            self._turns = self._idle = None
            self.tasks.discard(task)

    def _wake(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            idle.set_result(None)

    def on_body(self, body: bytes) -> None:
        self._bare_bytes = 0
        cycle: Any = self.cycle
        if type(cycle) is not Direct:
            super().on_body(body)
        elif not cycle.response_complete:
            cycle.take(body)

    def on_message_complete(self) -> None:
        if self._in_head:  # of an offer
            return
        cycle: Any = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()
        elif not cycle.keep_alive:
            self.transport.close()
        self.wire.whole = True

    def on_response_complete(self) -> None:
        """As uvicorn's, without a timer for each answer: ``_look`` closes what is idle for too long."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._idle_since = self.loop.time()
        self.flow.resume_reading()
        if self.pipeline:
            cycle: Any
            cycle, app = self.pipeline.pop()
            if type(cycle) is Direct:
                self._start(cycle)
            else:
                self._start_asgi_task(cycle, app)

    def end(self) -> None:
        """The answer to the newest request is the last here: a client that comes back comes to another
        router, also behind a balancer of connections."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def _look(self) -> None:
        """One timer looks after a connection, its heads and its idleness; it costs a request nothing."""
        now, between = self.loop.time(), self._between
        if self._in_head:
            left = self._head_since + HEAD_SECONDS - now
        elif self.cycle is None or self.cycle.response_complete:
            crowded = len(self.connections) > crowd()
            left = self._idle_since + (between if crowded else self.timeout_keep_alive) - now
        else:
            left = between
        if left <= 0:
            if self._in_head and (self._bare_bytes or self.cycle is not None):
                self._refuse(Fault.HEAD_TIMEOUT)
            else:  # who said no word, or no further one, did nothing wrong
                self.transport.close()
        else:
            self._look_timer = self.loop.call_later(min(left, between), self._look)


class Server(uvicorn.Server):
    """At the first SIGTERM or SIGINT it drains: it still listens, and says 503, until no request is under way
    or ``seconds`` are over. At the second it cuts what is under way, which leaves its records."""

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Drain,
        seconds: float,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._seconds = seconds
        self._ticks = ticks
        self._until = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._captured_signals.append(sig)  # raised again at the end, so that the exit status tells of it
        if not self._drain.under_way:
            self.drain()
        else:
            self._until = self._ticks()

    def drain(self) -> None:
        self._until = self._ticks() + self._seconds
        self._drain.begin()
        for connection in list(self.server_state.connections):
            cast("Connection", connection).end()

    async def on_tick(self, counter: int) -> bool:
        if self._drain.under_way:
            left = self._until - self._ticks()
            if not self._drain.busy or left <= 0:
                self.config.timeout_graceful_shutdown = max(1, round(left))
                self.should_exit = True
        return await super().on_tick(counter)


def server(app: Any, drain: Drain, *, seconds: float, **settings: Any) -> Server:
    """No access log of uvicorn's (``router.logs`` has one without tenants' data), no websockets."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="on",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=max(1, round(seconds)),
        **settings,
    )
    return Server(config, drain, seconds)
