"""Follows the registry's state and holds the newest tables; requests read them without waiting."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from registry.models import Snapshot
from router.errors import RouterNotReady
from router.limits import Freshness
from router.ports import FeedSource
from router.tables import Tables, compile_tables

_log = logging.getLogger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds before a source that failed is asked again; doubled each time."""


class Feed:
    def __init__(self, source: FeedSource, *, freshness: Freshness, ticks: Callable[[], float]) -> None:
        """``ticks``: monotonic seconds."""
        self._source = source
        self._freshness = freshness
        self._ticks = ticks
        self._tables: Tables | None = None
        self._heard = ticks()
        self._task: asyncio.Task[None] | None = None

    @property
    def latest(self) -> Tables | None:
        return self._tables

    @property
    def age(self) -> float:
        """Seconds since the registry last said something, "nothing new" included."""
        return self._ticks() - self._heard

    def tables(self) -> Tables:
        """Raises RouterNotReady before the first state and when the last word is too old to trust."""
        if self._tables is None:
            raise RouterNotReady("the router has no state from the registry yet")
        if self.age > self._freshness.serve:
            raise RouterNotReady("the router lost touch with the registry")
        return self._tables

    def reasons(self) -> list[str]:
        """Why this feed is no ground to be ready on; empty when it is."""
        if self._tables is None:
            return ["no state from the registry yet"]
        found = []
        if self.age > self._freshness.ready:
            found.append(f"the registry was last heard {self.age:.0f} s ago")
        if self._tables.attested == 0:
            found.append("no engine is attested for any version")
        return found

    async def start(self) -> None:
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _follow(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            after = self._tables.size if self._tables is not None else None
            try:
                # Twice the wait that was asked for: a source that hangs is asked again, not waited for.
                async with asyncio.timeout(2 * self._freshness.wait):
                    snapshot = await self._source.read(after, self._freshness.wait)
                if snapshot is not None:
                    await self._adopt(snapshot)
            except (
                Exception
            ) as error:  # the source is somebody else's; what is known stays in force until too old
                _log.warning("feed: %s; asking again in %.1f s", type(error).__name__, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._heard = self._ticks()
                pause = _FIRST_PAUSE
                await asyncio.sleep(0)  # a source that never waits must not starve the requests

    async def _adopt(self, snapshot: Snapshot) -> None:
        """Swap the tables in one assignment. Raises ValueError for a registry that went back in time."""
        current = self._tables
        if current is not None and snapshot.size <= current.size:
            if (snapshot.size, snapshot.root) == (current.size, current.root):
                return
            _log.error("feed: size %d after size %d: the log was rolled back", snapshot.size, current.size)
            raise ValueError("the registry's log was rolled back or forked")
        # In a thread: a thousand policies take longer to compile than a request may wait.
        tables = await asyncio.to_thread(compile_tables, snapshot, current)
        for fault in tables.faults:
            _log.warning("feed: %s", fault)
        self._tables = tables
