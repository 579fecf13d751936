"""One HTTP/1.1 connection to an engine, carrying one answer at a time."""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from router.errors import EngineDied, EngineFailed, EngineTimeout, EngineUnavailable, RouterError
from router.limits import Timeouts
from router.upstream.answer import Answer

MOST_HEAD_BYTES = 64 << 10
_MOST_INTERIM = 8
"""Interim (1xx) answers before the real one; an engine sends none."""
_LINGER_SECONDS = 0.02
"""After ``[DONE]`` only the end of the HTTP body is missing, and it is on its way."""
_STALE_SECONDS = 0.05
"""A round trip to an engine (1 ms within a cluster) and a busy loop: a loss that was on its way when the
request was sent is seen by then. After that the engine was at work on it."""


class Stale(EngineUnavailable):
    """A kept-open connection ended at once and without a word: the engine had just closed it (RFC 9112,
    9.3.1)."""


class Connection(asyncio.Protocol):
    """``send`` a request, read the :class:`Answer`; ``free`` is called when it can carry another, ``lost``
    when it cannot any more."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeouts: Timeouts,
        free: "Callable[[Connection], None]",
        lost: "Callable[[Connection], None]",
    ) -> None:
        self.loop = loop
        self._timeouts = timeouts
        self._free = free
        self._lost = lost
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._head_bytes = 0
        self._interim = 0
        self._paused = False
        self._lingering = False
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.used = 0
        """Answers carried before the present one."""
        self.idle_since = 0.0
        self.open = False

    def send(self, head: bytes, body: bytes) -> Answer:
        """Start a request. The connection must be open and free."""
        answer = self._answer = Answer(self, self._timeouts)
        self._head_bytes = self._interim = 0
        assert self._transport is not None
        self._transport.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        return answer

    def release(self, answer: Answer) -> None:
        """The request is through with ``answer``."""
        if answer is not self._answer:
            return
        if answer.complete:
            self._over(answer)
        elif self.open and answer.status:
            self._lingering = True
            self.resume()
            self.expect(_LINGER_SECONDS)
        else:
            self.abort()

    def expect(self, seconds: float) -> None:
        """Be patient for this long from now.

        One timer serves all waits: it is moved only when it would come too late, and looks at the deadline
        when it fires.
        """
        now = self.loop.time()
        self._deadline = now + seconds
        if self._timer is None or self._timer_at > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = self._deadline
            self._timer = self.loop.call_at(self._deadline, self._late)

    def _asked_for(self) -> float:
        """Seconds since ``send``, while nothing came: the first wait began there."""
        return self.loop.time() - (self._deadline - self._timeouts.first_byte)

    def resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def _late(self) -> None:
        self._timer = None
        answer = self._answer
        if answer is None or not (answer.waiting or self._lingering):
            return  # idle, or the client is the slow one: the next wait arms it again
        if self.loop.time() < self._deadline:
            self._timer_at = self._deadline
            self._timer = self.loop.call_at(self._deadline, self._late)
        else:
            self._broken(EngineTimeout())

    def _broken(self, error: RouterError) -> None:
        if self._answer is not None:
            self._answer.fail(error)
        self.abort()

    def _let_go(self, answer: Answer) -> None:
        if answer.complete:
            self._over(answer)

    def _over(self, answer: Answer) -> None:
        """The answer is complete and nobody reads it any more."""
        self._answer, self._lingering = None, False
        if self.open:
            self.used += 1
            self.idle_since = self.loop.time()
            self._free(self)

    # -- asyncio.Protocol -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's only look like one
        self.open = True

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None or answer.complete:  # bytes that nobody asked for would be the next answer
            self.abort()
            return
        if not answer.status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:  # an upgrade raises one too
            self._broken(EngineFailed())
        if not answer.status and self._head_bytes > MOST_HEAD_BYTES:
            self._broken(EngineFailed())
        if self._lingering:
            self._let_go(answer)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        answer, self._transport = self._answer, None
        if answer is not None:
            if answer.status:
                answer.fail(EngineDied())
            elif self.used and not self._head_bytes and self._asked_for() < _STALE_SECONDS:
                answer.fail(Stale())
            else:
                answer.fail(EngineUnavailable())
        self._lost(self)

    # -- httptools --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.complete:  # a second answer behind the first
            self.abort()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        answer = self._answer
        if answer is None or answer.complete or not self.open:
            return
        if status >= 200:
            answer.started(status)
        else:
            self._interim += 1
            if self._interim > _MOST_INTERIM or status == 101:
                self._broken(EngineFailed())

    def on_body(self, body: bytes) -> None:
        answer = self._answer
        if answer is None or answer.complete or self._lingering or not self.open:
            return
        if not answer.deliver(body) and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        answer = self._answer
        if answer is None or not answer.status or not self.open:  # no status: of an interim answer
            return
        if not self._parser.should_keep_alive():
            self.abort()
        answer.ended()
