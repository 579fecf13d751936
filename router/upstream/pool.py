"""The connections to all engines; ``ask`` takes a free one or opens one.

No limit on their number: admission decides how much an engine gets.
"""

import asyncio
import ssl
from collections import deque

from router.errors import EngineUnavailable, NothingSent
from router.limits import Timeouts
from router.upstream.address import Address, Origin, address_of
from router.upstream.answer import Answer
from router.upstream.connection import Connection, Stale

# Below uvicorn's (so vLLM's) 5 s: of a connection that the engine is just closing it is hard to say whether
# the engine saw the request.
_KEEP_ALIVE = 3.0
_SWEEP_SECONDS = 1.0
_MOST_ADDRESSES = 4096
"""Engines come and go with new ports; forgetting all of them now and then costs microseconds."""


class EnginePool:
    """``Engines`` over the network."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._addresses: dict[str, Address] = {}
        self._free: dict[Origin, deque[Connection]] = {}
        self._origins: dict[Connection, Origin] = {}
        """Every open connection, free or not."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None

    @property
    def connections(self) -> int:
        return len(self._origins)

    @property
    def free(self) -> int:
        return sum(len(free) for free in self._free.values())

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sweep()

    async def stop(self) -> None:
        self._loop = None
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._origins):
            connection.abort()
        self._free.clear()

    async def ask(self, url: str, body: bytes, traceparent: bytes = b"") -> Answer:
        """See :class:`router.ports.Engines`."""
        address = self._addresses.get(url) or self._learn(url)
        head = address.head if not traceparent else address.traced(traceparent)
        used = self._take(address.origin)
        if used is not None:
            answer = used.send(head, body)
            try:
                await answer.begun()
            except Stale:
                pass  # ask again, on a connection that is surely open
            except BaseException:
                await answer.close()
                raise
            else:
                return answer
        try:
            connection = await self._connect(address.origin)
        except NothingSent:
            if used is None:
                raise
            raise EngineUnavailable from None  # it had the request, and may have died of it
        answer = connection.send(head, body)
        try:
            await answer.begun()
        except BaseException:
            await answer.close()
            raise
        return answer

    def _learn(self, url: str) -> Address:
        if len(self._addresses) >= _MOST_ADDRESSES:
            self._addresses.clear()
        try:
            address = address_of(url)
        except ValueError:
            raise NothingSent from None
        self._addresses[url] = address
        return address

    def _take(self, origin: Origin) -> Connection | None:
        """The one used last: it is the least likely to be closed, and the others may age and go."""
        free = self._free.get(origin)
        if not free or self._loop is None:
            return None
        oldest = self._loop.time() - _KEEP_ALIVE
        while free:
            connection = free.pop()
            if connection.open and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: Origin) -> Connection:
        loop = self._loop
        if loop is None:
            raise EngineUnavailable

        def make() -> Connection:
            return Connection(loop, self._timeouts, self._release, self._forget)

        try:
            async with asyncio.timeout(self._timeouts.connect):
                if origin.socket is not None:
                    _, connection = await loop.create_unix_connection(make, origin.socket)
                else:
                    _, connection = await loop.create_connection(
                        make, origin.host, origin.port, ssl=self._context() if origin.tls else None
                    )
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError
            raise NothingSent from None
        if self._loop is None:  # stopped meanwhile
            connection.abort()
            raise EngineUnavailable
        self._origins[connection] = origin
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _release(self, connection: Connection) -> None:
        origin = self._origins.get(connection)
        if origin is None or self._loop is None:
            connection.abort()
            return
        free = self._free.get(origin)
        if free is None:
            free = self._free[origin] = deque()
        free.append(connection)

    def _forget(self, connection: Connection) -> None:
        self._origins.pop(connection, None)

    def _sweep(self) -> None:
        """Close what has been free for too long."""
        loop = self._loop
        if loop is None:
            return
        oldest = loop.time() - _KEEP_ALIVE
        for origin, free in list(self._free.items()):
            while free and (free[0].idle_since <= oldest or not free[0].open):
                free.popleft().abort()
            if not free:
                del self._free[origin]
        self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep)
