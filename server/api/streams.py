"""Bodies too large for memory: from the connection into a worker thread, and back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import BinaryIO, Final, TypeVar, cast

import anyio.from_thread
import anyio.to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from registry.digests import chunks
from server.errors import BodyBrokenOff

T = TypeVar("T")

_SILENCE: Final = 30.0
"""Seconds without a byte after which a sender has gone. The thread that waits is one of few."""
_AT_ONCE: Final = 32
"""Bodies that are received at a time; further ones wait, and everything else has threads of its own."""


class Receiving:
    """``await receive(request, work)``: ``work(stream)`` in a thread, where reading the stream waits for the
    connection. At most 8 MiB of a body are in memory, whoever reads it."""

    def __init__(self) -> None:
        self._threads = anyio.CapacityLimiter(_AT_ONCE)

    async def __call__(self, request: Request, work: Callable[[BinaryIO], T]) -> T:
        body = cast("BinaryIO", _Body(request.stream()))
        return await anyio.to_thread.run_sync(work, body, limiter=self._threads)


class _Body:
    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
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
        try:
            async with asyncio.timeout(_SILENCE):
                async for piece in self._pieces:
                    if piece:
                        return piece
        except (ClientDisconnect, TimeoutError):
            raise BodyBrokenOff("the connection broke off, or nothing came over it for too long") from None
        return b""


def sending(stream: BinaryIO) -> Iterator[bytes]:
    """All of it, closed in the end. A stream that finds itself damaged cuts the answer short of its announced
    length, which every HTTP client takes as a failure."""
    with stream:
        yield from chunks(stream, 256 << 10)
