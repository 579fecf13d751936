"""An engine that is to leave has nothing under way any more."""

import asyncio
import math

from registry.errors import TenonError
from server.engines.cadence import Cadence
from server.engines.client import VllmClient

_LOOK, _SELDOM = 0.05, 1.0


class Drain:
    """Whether an engine that routers no longer use may end, by what it says at each look: pure."""

    def __init__(self, *, quiet: float, limit: float, stalled: float = math.inf) -> None:
        """In seconds. ``quiet``: idle in a row, for requests that a router sent before it heard. ``limit``:
        in all. ``stalled``: without a token; then what it works on never ends."""
        self._quiet, self._limit, self._stalled = quiet, limit, stalled
        self._began: float | None = None
        self._idle: float | None = None
        self._made: tuple[float | None, float] = None, 0.0
        """Tokens, and since when it is not more."""

    def over(self, now: float, *, running: int, made: float | None) -> bool | None:
        """True: nothing runs. False: it is given up. None: look again."""
        if self._began is None:
            self._began, self._made = now, (made, now)
        if made != self._made[0]:
            self._made = made, now
        if running:
            self._idle = None
        elif self._idle is None:
            self._idle = now
        elif now - self._idle >= self._quiet:
            return True
        hangs = running > 0 and now - self._made[1] >= self._stalled
        return False if hangs or now - self._began >= self._limit else None


def vacating(cadence: Cadence) -> Drain:
    """Of a boot that ends although nothing is wrong: no answer is cut for that. A router that had not heard
    yet may begin one until ``quiet`` is over, and lets it last for ``answers``."""
    return Drain(
        quiet=cadence.quiet, limit=cadence.quiet + cadence.answers, stalled=cadence.misses * cadence.answer
    )


async def drained(engine: VllmClient, drain: Drain) -> bool:
    """Whether vLLM had nothing left. An engine that no longer answers has nothing to wait for."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        try:
            running, made = await engine.unfinished(), await engine.made()
        except TenonError:
            return False
        if (done := drain.over(now := loop.time(), running=running, made=made)) is not None:
            return done
        # An hour of looks, 20 a second, would cost those who are still answered.
        await asyncio.sleep(min(_SELDOM, max(_LOOK, (now - began) / 20)) if running else _LOOK)
