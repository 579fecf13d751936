"""Which engines can be reached: looked at in the background, so that ``/readyz`` only reads a set.

A router that reaches no engine (a network policy, a lost zone) must lose its traffic to one that does, and it
must be seen without any traffic, or it would never get it back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from router.upstream.address import address_of

_CONNECT_SECONDS = 2.0
_LOOK_SECONDS = 3.0
_AT_ONCE = 16


class Reach:
    def __init__(self, urls: Callable[[], Iterable[str]], connects: Callable[[str], Awaitable[bool]]) -> None:
        """``urls``: of the engines that are wanted now. ``connects``: whether one takes a connection."""
        self._urls = urls
        self._connects = connects
        self._unreachable: set[str] = set()
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._looking = asyncio.create_task(self._look_often())

    async def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking

    def reasons(self) -> list[str]:
        """Why requests would fail. One engine that answers is enough; one never looked at counts as one."""
        wanted = set(self._urls())
        return ["no engine can be reached"] if wanted and wanted <= self._unreachable else []

    @property
    def unreachable(self) -> int:
        return len(self._unreachable)

    async def look(self) -> None:
        """One look at every engine."""
        some = asyncio.Semaphore(_AT_ONCE)

        async def one(url: str) -> str | None:
            async with some:
                return None if await self._connects(url) else url

        found = await asyncio.gather(*(one(url) for url in set(self._urls())))
        self._unreachable = {url for url in found if url is not None}

    async def _look_often(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)


async def takes_connections(url: str) -> bool:
    try:
        origin = address_of(url).origin
        async with asyncio.timeout(_CONNECT_SECONDS):
            if origin.socket is not None:
                _, writer = await asyncio.open_unix_connection(origin.socket)
            else:
                _, writer = await asyncio.open_connection(origin.host, origin.port)
    except (OSError, TimeoutError, ValueError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


async def always(_: str) -> bool:
    """For engines that are no network."""
    return True
