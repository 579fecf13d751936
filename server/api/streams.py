"""Bodies too large for memory: from the connection into a worker thread, and back."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, TypeVar, cast
from weakref import WeakValueDictionary

import anyio.from_thread
import anyio.to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from registry.digests import chunks
from server.errors import BodyBrokenOff

T = TypeVar("T")

_AT_ONCE: Final = 32
"""Bodies that are received at a time; further ones wait, and everything else has threads of its own."""
_OF_ONE_TENANT: Final = 8
"""Of these: enough for a gigabit from any one of them, and three more tenants can do the same."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a thread, which is one of few, waits for a sender."""

    seconds: float = 30.0
    """Without a byte, or with too few of them."""
    rate: float = 8 << 10
    """Bytes that earn a second, up to ``seconds`` of them: whoever sends fewer never meant to come.
    64 kbit/s, a line over which 8 MiB take 17 minutes."""


class Receiving:
    """``await receive(tenant, request, work)``: ``work(stream)`` in a thread, where reading the stream waits
    for the connection. At most 8 MiB of a body are in memory, whoever reads it."""

    def __init__(self, patience: Patience | None = None) -> None:
        self._threads = anyio.CapacityLimiter(_AT_ONCE)
        self._shares: WeakValueDictionary[str, anyio.CapacityLimiter] = WeakValueDictionary()
        self._patience = patience or Patience()

    async def __call__(self, tenant: str, request: Request, work: Callable[[BinaryIO], T]) -> T:
        share = self._shares.get(tenant)
        if share is None:  # kept by those that hold it or wait for it
            share = self._shares[tenant] = anyio.CapacityLimiter(_OF_ONE_TENANT)
        body = cast("BinaryIO", _Body(request.stream(), self._patience))
        async with share:
            return await anyio.to_thread.run_sync(work, body, limiter=self._threads)


class _Body:
    def __init__(self, pieces: AsyncIterator[bytes], patience: Patience) -> None:
        self._pieces = pieces
        self._patience = patience
        self._credit = patience.seconds
        self._held = b""

    def read(self, size: int = -1, /) -> bytes:
        """What has come, at most ``size``; nothing only at the end. Raises BodyBrokenOff."""
        if not self._held:
            self._held = anyio.from_thread.run(self._next)
        if size < 0:
            size = len(self._held)
        data, self._held = self._held[:size], self._held[size:]
        return data

    async def _next(self) -> bytes:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._credit):
                async for piece in self._pieces:
                    if piece:
                        # Only what is spent waiting for the sender: a slow store is not its fault.
                        left = self._credit - (time.monotonic() - began)
                        self._credit = min(self._patience.seconds, left + len(piece) / self._patience.rate)
                        return piece
        except (ClientDisconnect, TimeoutError):
            raise BodyBrokenOff("the connection broke off, or too little came over it for too long") from None
        return b""


def sending(stream: BinaryIO) -> Iterator[bytes]:
    """All of it, closed in the end. A stream that finds itself damaged cuts the answer short of its announced
    length, which every HTTP client takes as a failure."""
    with stream:
        yield from chunks(stream, 256 << 10)
