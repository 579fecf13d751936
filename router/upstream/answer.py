"""One answer under way: what a connection delivers into and a request reads from.

An object of its own per request, so that a request which kept it for too long reads from nothing instead of
from the answer to the next request on the same connection.
"""

import asyncio
from typing import TYPE_CHECKING

from router.errors import EngineInterrupted, RouterError
from router.limits import Timeouts

if TYPE_CHECKING:
    from router.upstream.connection import Connection

HIGH_WATER = 256 << 10
"""Bytes that a slow client may leave unread here before the engine's socket is no longer read."""


class Answer:
    __slots__ = (
        "_connection",
        "_error",
        "_patience",
        "_pieces",
        "_size",
        "_timeouts",
        "_waiter",
        "complete",
        "status",
    )

    def __init__(self, connection: "Connection", timeouts: Timeouts) -> None:
        self.status = 0
        """0 until the engine answered."""
        self.complete = False
        self._connection: Connection | None = connection
        self._timeouts = timeouts
        # The status line of a stream comes before its first token, so the first bytes get the long patience.
        self._patience = timeouts.first_byte
        self._pieces: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: RouterError | None = None

    # -- the request's side -----------------------------------------------------------------------------

    async def begun(self) -> None:
        """Wait for the status line. Raises EngineUnavailable, EngineFailed, EngineTimeout."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._more()

    async def read(self) -> bytes:
        """All that has arrived since the last call, or what arrives next; empty at the end.

        Raises EngineDied, EngineFailed, EngineTimeout; EngineInterrupted after ``close``.
        """
        while not self._pieces:
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._more()
        self._patience = self._timeouts.between_chunks
        pieces, self._pieces = self._pieces, []
        if self._size > HIGH_WATER and self._connection is not None:
            self._connection.resume()
        self._size = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def close(self) -> None:
        """Give the connection back if the answer was read to its end; else cut it: the engine stops then."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release(self)

    def _more(self) -> asyncio.Future[None]:
        """Done when something came. Not a coroutine: two of them a request would be made for nothing."""
        if self._connection is None:  # closed: what was not read is lost
            raise EngineInterrupted
        self._connection.expect(self._patience)
        self._waiter = waiter = self._connection.loop.create_future()
        return waiter

    # -- the connection's side --------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def started(self, status: int) -> None:
        self.status = status
        self._wake()

    def deliver(self, piece: bytes) -> bool:
        """Whether there is room for more."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._waiter is not None:
            self._wake()
        return self._size <= HIGH_WATER

    def ended(self) -> None:
        self.complete = True
        self._wake()

    def fail(self, error: RouterError) -> None:
        if not self.complete and self._error is None:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
