"""One look at the log for everybody who waits for it to grow."""

import asyncio
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool

from registry.store.errors import StoreUnavailable

INTERVAL = 0.05
"""Seconds between looks. Other processes write the log too and SQLite cannot notify; a look is one query of
about 0.3 ms, and a revocation reaches the readers this much later at most."""


class Watch:
    """Looks only while somebody waits, and once for all of them."""

    def __init__(self, look: Callable[[], int], *, interval: float = INTERVAL) -> None:
        self._look = look
        self._interval = interval
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._looking: asyncio.Task[None] | None = None
        self._looked = float("-inf")

    async def moved(self, size: int, wait: float) -> bool:
        """Whether the log's size was another one than ``size`` within ``wait`` seconds.

        Raises what looking raises, and StoreUnavailable when nobody could look: "nothing new" is an answer
        that readers rely on.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting[future] = size
        if self._looking is None or self._looking.done():
            self._looking = loop.create_task(self._watch())
        try:
            async with asyncio.timeout(wait):
                await future
        except TimeoutError:
            if self._looked < began:
                raise StoreUnavailable("the log could not be looked at in time") from None
            return False
        finally:
            del self._waiting[future]
        return True

    async def _watch(self) -> None:
        while self._waiting:
            began = asyncio.get_running_loop().time()
            try:
                found = await run_in_threadpool(self._look)
            except Exception as error:  # whatever it is, each reader's own request answers it
                for future in self._waiting:
                    if not future.done():
                        future.set_exception(error)
            else:
                self._looked = began
                for future, size in self._waiting.items():
                    if size != found and not future.done():
                        future.set_result(None)
            await asyncio.sleep(self._interval)
