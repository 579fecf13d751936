"""What routers tell each other of what they let through, twice a second, while no request waits for it.

Until another router has heard of it, what is let through here is unknown there: at most what both let
through within ``EVERY`` seconds and one round trip, or within ``FOLLOW_EVERY`` where the tenant asked nothing
lately. While nobody answers, each router goes on with what it heard last.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from registry.counting import Count, CountAnswer, CountReport
from registry.errors import TenonError
from router.admission.accounts import Account
from router.admission.admission import Admission
from router.admission.hours import Hours
from router.admission.queue import Queue
from router.admission.tickets import touch
from router.ports import Counters

_log = logging.getLogger(__name__)
EVERY = 0.5
"""Seconds between two exchanges."""
FOLLOW_EVERY = 2.5
"""Seconds between two looks at those who ask nothing here now; for ``_FOLLOWED`` seconds after they did."""
_FOLLOWED = 600.0
_PRESENCE = Count(subject="", kind="router", slot=0, value=1)
_PATIENCE = 5.0
_MOST = 300
"""Accounts in one report: 27 counts each, within what a report may hold."""


class Alone:
    """``Counters`` of the only router there is."""

    async def exchange(self, report: CountReport) -> CountAnswer:
        return CountAnswer(routers=0)


class CountExchange:
    def __init__(
        self,
        counters: Counters,
        admission: Admission,
        queue: Queue,
        hours: Hours,
        *,
        writer: str,
        every: float = EVERY,
        ticks: Callable[[], float],
    ) -> None:
        """``writer``: this router in this start of it, and nobody else ever."""
        self._counters = counters
        self._admission = admission
        self._queue = queue
        self._hours = hours
        self._writer = writer
        self._every = every
        self._ticks = ticks
        self._seq = 0
        self._looked = -math.inf
        self._followed: dict[str, tuple[Account, float]] = {}
        """Subject -> account, and the tick at which it was last touched."""
        self._beating: dict[str, Account] = {}
        """Those that the others must go on believing in: with requests under way that are limited."""
        self._task: asyncio.Task[None] | None = None
        self._heard = ticks()
        self.failed = 0
        """Exchanges that were not answered."""

    @property
    def age(self) -> float:
        """Seconds since the other routers were last heard of."""
        return self._ticks() - self._heard

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def once(self) -> None:
        """Tell and hear. Raises whatever the counters raise; then all of it is told again."""
        self._hours.correct()
        told = self._admission.touched[:]
        self._admission.touched.clear()
        now = self._ticks()
        for account in told:
            account.touched = False
            self._followed[account.subject] = account, now
            if account.most_running is not None:
                self._beating[account.subject] = account
        accounts = list({account.subject: account for account in (*told, *self._beating.values())}.values())
        if now - self._looked >= FOLLOW_EVERY:
            self._followed = {
                subject: known for subject, known in self._followed.items() if now - known[1] < _FOLLOWED
            }
            known = {account.subject for account in accounts}
            accounts += [account for subject, (account, _) in self._followed.items() if subject not in known]
        elif not accounts:
            return
        waiting = list(_parts(accounts))
        try:
            while waiting:
                await self._tell(waiting[0])
                waiting.pop(0)
        except BaseException:
            for account in (account for part in waiting for account in part):
                touch(account, self._admission.touched)
            raise
        if len(accounts) >= len(self._followed):
            self._looked = now
        for subject in [name for name, account in self._beating.items() if not account.running]:
            del self._beating[subject]

    async def _tell(self, accounts: Sequence[Account]) -> None:
        news = [(account, count) for account in accounts for count in account.news(self._hours.now())]
        self._seq += 1
        report = CountReport(
            writer=self._writer,
            seq=self._seq,
            counts=(_PRESENCE, *(count for _, count in news)),
            about=tuple(account.subject for account in accounts),
        )
        answer = await self._counters.exchange(report)
        for account, count in news:
            account.told(count)
        heard: dict[str, list[Count]] = {}
        for count in answer.counts:
            heard.setdefault(count.subject, []).append(count)
        now = self._hours.now()
        for account in accounts:
            account.hear(heard.get(account.subject, ()), now)
        self._queue.share(answer.routers + 1)
        self._heard = self._ticks()

    async def _run(self) -> None:
        answered = True
        while True:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self.once()
            except Exception as error:  # the counters are somebody else's; limits go on without them
                self.failed += 1
                if answered:
                    why = error.message if isinstance(error, TenonError) else type(error).__name__
                    _log.warning("limits: %s; going on with what was last heard of other routers", why)
                answered = False
            else:
                answered = True
            await asyncio.sleep(self._every)


def _parts(accounts: Sequence[Account]) -> Iterator[Sequence[Account]]:
    """At least one: an empty report says that this router is there."""
    for start in range(0, max(1, len(accounts)), _MOST):
        yield accounts[start : start + _MOST]
