"""Waits until an engine that routers were told to leave has nothing under way any more."""

import asyncio

from registry.errors import TenonError
from server.engines.client import VllmClient

_LOOK = 0.05


async def drained(engine: VllmClient, *, quiet: float, limit: float) -> bool:
    """Whether vLLM was idle for ``quiet`` seconds in a row, within ``limit``. ``quiet`` is for requests that
    a router sent before it heard. An engine that no longer answers has nothing to wait for."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limit
    idle: float | None = None
    while (now := loop.time()) < end:
        try:
            busy = await engine.unfinished() > 0
        except TenonError:
            return False
        if busy:
            idle = None
        elif idle is None:
            idle = now
        elif now - idle >= quiet:
            return True
        await asyncio.sleep(_LOOK)
    return False
