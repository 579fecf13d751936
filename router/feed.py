"""Follows the registry's state and holds the newest tables; requests read them without waiting."""

import asyncio
import gc
import logging
from collections.abc import Callable
from contextlib import suppress

from registry.errors import TenonError
from registry.feed import Delta, News, Snapshot
from router.errors import RouterNotReady
from router.limits import Freshness
from router.ports import FeedSource
from router.tables import Tables, advance, compile_tables

_log = logging.getLogger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds before a source that failed is asked again; doubled each time."""
_FIRST_LOAD = 120.0
"""Seconds for the first state: 10,000 tenants are tens of megabytes, and nobody is served meanwhile."""


class Feed:
    def __init__(
        self,
        source: FeedSource,
        *,
        freshness: Freshness,
        ticks: Callable[[], float],
        adopted: Callable[[Tables], None] = lambda _: None,
    ) -> None:
        """``ticks``: monotonic seconds. ``adopted``: told of new tables, at once when requests see them."""
        self._adopted = adopted
        self._source = source
        self._freshness = freshness
        self._ticks = ticks
        self._tables: Tables | None = None
        self._heard = ticks()
        self._told = 0
        """Entries in the log, as the registry said last."""
        self._task: asyncio.Task[None] | None = None

    @property
    def latest(self) -> Tables | None:
        return self._tables

    @property
    def age(self) -> float:
        """Seconds since the registry last said something, "nothing new" included."""
        return self._ticks() - self._heard

    @property
    def lag(self) -> int:
        """Entries that the registry told of and that requests do not see yet."""
        return self._told - (self._tables.size if self._tables is not None else 0)

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
        if self.age > self._freshness.serve:
            found.append(f"the registry was last heard {self.age:.0f} s ago")
        if not self._tables.places:
            found.append("no engine is attested for any version")
        return found

    def engine_urls(self) -> set[str]:
        """Where requests may have to go: engines in which some version is attested."""
        if self._tables is None:
            return set()
        return {place.url for held in self._tables.places.values() for place in held.places}

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
            known = self._tables.state.position if self._tables is not None else None
            # Twice the wait that was asked for: a source that hangs is asked again, not waited for.
            patience = _FIRST_LOAD if known is None else 2 * self._freshness.wait
            try:
                async with asyncio.timeout(patience):
                    news = await self._source.read(known, self._freshness.wait)
                if news is not None:
                    await self._adopt(news)
            except (
                Exception
            ) as error:  # the source is somebody else's; what is known stays in force until too old
                why = error.message if isinstance(error, TenonError) else type(error).__name__
                _log.warning("feed: %s; asking again in %.1f s", why, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._heard = self._ticks()
                pause = _FIRST_PAUSE
                await asyncio.sleep(0)  # a source that never waits must not starve the requests

    async def _adopt(self, news: News) -> None:
        """Swap the tables in one assignment. Raises FeedMismatch, and ValueError for a registry that went
        back in time."""
        current = self._tables
        if current is not None and news.size <= current.size:
            if news.position == current.state.position:
                return
            _log.error("feed: size %d after size %d: the log was rolled back", news.size, current.size)
            raise ValueError("the registry's log was rolled back or forked")
        self._told = news.size
        # In a thread: everything from the start takes longer to compile than a request may wait.
        if current is not None and isinstance(news, Delta):
            tables = await asyncio.to_thread(advance, current, news)
        elif isinstance(news, Delta):
            raise ValueError("a change was told, and there is nothing yet that it could change")
        else:
            tables = await asyncio.to_thread(_compiled, news, current)
        known = current.troubles if current is not None else {}
        for subject, fault in tables.troubles.items():
            if known.get(subject) != fault:
                _log.warning("feed: %s", fault)
        self._tables = tables
        self._adopted(tables)


def _compiled(snapshot: Snapshot, current: Tables | None) -> Tables:
    tables = compile_tables(snapshot, current)
    # What stays for days is put where the collector no longer looks: a full collection would walk through a
    # million objects while every request waits (0.4 s at 50,000 versions).
    gc.freeze()
    return tables
