"""The agent's word that it is there: without it, the control plane takes the engine for dead."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from registry.errors import TenonError
from server.engines.ports import ControlPlane


@contextlib.asynccontextmanager
async def saying_alive(control: ControlPlane, engine: str, boot: str, *, every: float) -> AsyncIterator[None]:
    """``every``: seconds. In a task of its own: a load that takes minutes must not look like a death.

    What is answered is not looked at: that an engine counts as down stands in the feed, too.
    """

    async def say() -> None:
        while True:
            with contextlib.suppress(TenonError):
                await control.alive(engine, boot)
            await asyncio.sleep(every)

    saying = asyncio.create_task(say())
    try:
        yield
    finally:
        saying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await saying
