"""An account: what one tenant or one key may use, and what it uses."""

import math
from collections.abc import Iterable, Iterator

from registry.counting import BEAT_SECONDS, DAY_SECONDS, SLICE_SECONDS, SLICES, Count, Kind
from registry.models import Quota
from router.admission.windows import Day, Minute
from router.errors import BudgetSpent, RateLimited, RequestOverLimit

DAY_SLICES = DAY_SECONDS // SLICE_SECONDS
_SOON = 1
"""Seconds to wait for one of one's own requests to end: nobody knows when it will."""


class Account:
    """Created for those with limits only; counts stay when the limits change."""

    __slots__ = (
        "day",
        "heard",
        "most_running",
        "others_running",
        "requests",
        "running",
        "sent",
        "slot",
        "subject",
        "tokens",
        "touched",
    )

    def __init__(self, subject: str, quota: Quota) -> None:
        self.subject = subject
        self.requests: Minute | None = None
        self.tokens: Minute | None = None
        self.day: Day | None = None
        self.most_running: int | None = None
        self.running = 0
        self.slot = 0
        self.others_running = 0
        self.heard = 0.0
        self.touched = False
        """Whether anything happened here since the last exchange with the other routers."""
        self.sent: dict[tuple[Kind, int], int] = {}
        """What the other routers can know of this one's counts."""
        self.limit(quota)

    def limit(self, quota: Quota) -> None:
        self.requests = _minute(self.requests, quota.requests_per_minute)
        self.tokens = _minute(self.tokens, quota.tokens_per_minute)
        if quota.tokens_per_day is None:
            self.day = None
        elif self.day is None:
            self.day = Day(quota.tokens_per_day)
        else:
            self.day.limit = quota.tokens_per_day
        self.most_running = quota.concurrent_requests
        slot, self.slot = self.slot, 0  # a window that is new must learn what time it is
        self.advance(slot)

    def advance(self, slot: int) -> None:
        if slot <= self.slot:
            return
        self.slot = slot
        if self.requests is not None:
            self.requests.advance(slot)
        if self.tokens is not None:
            self.tokens.advance(slot)
        if self.day is not None:
            self.day.advance(slot // DAY_SLICES)

    def check(self, tokens: int, certain: int, now: float, requests: int = 1) -> int:
        """How many of ``tokens`` are to be reserved; ``certain`` of them were asked for, the rest estimated.
        ``requests``: 0 for one that was counted already.

        An estimate alone refuses nobody for ever: a request that would not fit into an empty window reserves
        all of it. Raises RateLimited, BudgetSpent, RequestOverLimit; changes nothing.
        """
        if self.most_running is not None:
            others = self.others_running if now - self.heard < BEAT_SECONDS else 0
            if self.running + others >= self.most_running:
                raise RateLimited("requests at a time", self.most_running, _SOON)
        waits = 0.0
        what, limit = "", 0
        if self.requests is not None and self.requests.used + requests > self.requests.limit:
            what, limit = "requests per minute", self.requests.limit
            waits = self.requests.wait(requests, now)
        if self.tokens is not None:
            if certain > self.tokens.limit:
                raise RequestOverLimit(certain, self.tokens.limit, "tokens per minute")
            tokens = min(tokens, self.tokens.limit) or 1  # nothing at all would pass a limit of 0
        day = self.day
        if day is not None:
            if certain > day.limit:
                raise RequestOverLimit(certain, day.limit, "tokens per day")
            tokens = min(tokens, day.limit) or 1
            if day.used + tokens > day.limit:
                raise BudgetSpent(day.limit, math.ceil(day.reset(now)))
        if self.tokens is not None and (wait := self.tokens.wait(tokens, now)) > waits:
            what, limit, waits = "tokens per minute", self.tokens.limit, wait
        if what:
            raise RateLimited(what, limit, max(1, math.ceil(waits)))
        return tokens

    def reserve(self, tokens: int, slot: int, requests: int = 1) -> None:
        self.running += 1
        if self.requests is not None:
            self.requests.add(slot, requests)
        if self.tokens is not None:
            self.tokens.add(slot, tokens)
        if self.day is not None:
            self.day.add(slot // DAY_SLICES, tokens)

    def settle(self, change: int, slot: int) -> None:
        """The request ended; ``change``: tokens used beyond the reserved ones, or fewer."""
        self.running -= 1
        if change:
            if self.tokens is not None:
                self.tokens.add(slot, change)
            if self.day is not None:
                self.day.add(slot // DAY_SLICES, change)

    def forget(self, slot: int, requests: int = 1) -> None:
        """The request never counted."""
        if self.requests is not None:
            self.requests.add(slot, -requests)

    def news(self, now: float) -> Iterator[Count]:
        """Own counts that the other routers do not know yet."""
        self.advance(int(now) // SLICE_SECONDS)
        own: dict[tuple[Kind, int], int] = {}
        for kind, minute in self._minutes():
            for slot in minute.slots():
                own[kind, slot] = minute.own[slot % SLICES]
        if self.day is not None:
            own["day", self.day.day] = self.day.own
        for key, value in own.items():
            if value != self.sent.get(key, 0):
                yield Count(subject=self.subject, kind=key[0], slot=key[1], value=value)
        # What runs is told each time: it is believed for seconds only.
        if self.most_running is not None and (self.running or self.sent.get(("running", 0))):
            yield Count(subject=self.subject, kind="running", slot=0, value=self.running)
        self.sent = {key: value for key, value in self.sent.items() if key in own or key[0] == "running"}

    def told(self, count: Count) -> None:
        self.sent[count.kind, count.slot] = count.value

    def hear(self, counts: Iterable[Count], now: float) -> None:
        """All that the other routers counted for this account; what is not named, none did."""
        self.advance(int(now) // SLICE_SECONDS)
        self.heard = now
        heard: dict[tuple[Kind, int], int] = {(count.kind, count.slot): count.value for count in counts}
        for kind, minute in self._minutes():
            for slot in minute.slots():
                minute.hear(slot, heard.get((kind, slot), 0))
        if self.day is not None:
            self.day.hear(self.day.day, heard.get(("day", self.day.day), 0))
        self.others_running = heard.get(("running", 0), 0)

    def _minutes(self) -> Iterator[tuple[Kind, Minute]]:
        if self.requests is not None:
            yield "requests", self.requests
        if self.tokens is not None:
            yield "tokens", self.tokens


def _minute(known: Minute | None, limit: int | None) -> Minute | None:
    if limit is None:
        return None
    if known is None:
        return Minute(limit)
    known.limit = limit
    return known
