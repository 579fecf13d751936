"""One engine as this router fills it, and who waits in front of it."""

import asyncio
from collections import deque
from collections.abc import Sequence

from registry.digests import Digest
from router.admission.loan import Loan
from router.places import Place

_REMEMBERED = 64
"""Requests whose time in the engine is remembered at least; of more, half are forgotten."""


class Entry:
    __slots__ = ("granted", "places", "since", "tenant", "timers", "version", "weight")

    def __init__(
        self, tenant: str, version: Digest, weight: int, places: Sequence[Place], since: float
    ) -> None:
        self.tenant = tenant
        self.version = version
        self.weight = weight
        self.places = {place.engine: place for place in places}
        self.since = since
        self.granted: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self.timers: list[asyncio.TimerHandle] = []


class Lane:
    """One engine, as full as this router made it."""

    __slots__ = (
        "active",
        "capacity",
        "closing",
        "ended",
        "flows",
        "lent",
        "loras",
        "of_tenant",
        "opened",
        "pins",
        "running",
        "slots",
        "spent",
        "tags",
        "turned",
        "turns",
        "until",
        "virtual",
    )

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.slots = 1
        self.loras = 1
        """Device slots for versions that are not pinned."""
        self.pins: frozenset[Digest] = frozenset()
        self.running = 0
        self.active: dict[Digest, int] = {}
        self.opened: dict[Digest, float] = {}
        """When each of them got its slot."""
        self.of_tenant: dict[str, int] = {}
        self.closing: set[Digest] = set()
        self.flows: dict[tuple[str, Digest], deque[Entry]] = {}
        self.lent: set[Loan] = set()
        self.virtual = 0.0
        """Turns that every tenant with weight 1 could have had since somebody began to wait."""
        self.tags: dict[str, float] = {}
        """Tenant -> when, in ``virtual`` time, it is due again."""
        self.turned = 0
        self.turns: dict[tuple[str, Digest], int] = {}
        """Flow -> number of its last turn."""
        self.spent = 0.0
        """Seconds that requests were in the engine until ``until``, all together: those under way, and
        ``ended`` others."""
        self.until = 0.0
        self.ended = 0

    def fits(self, version: Digest) -> bool:
        if self.running >= self.slots:
            return False
        if version in self.active:
            return version not in self.closing
        if self.pins:
            # Before it was pinned others may have had its slot: vLLM is never given more than it has.
            if version in self.pins:
                return len(self.active) < self.capacity
            return self.shared() < self.loras and len(self.active) < self.capacity
        return len(self.active) < self.loras

    def spares(self, version: Digest) -> bool:
        """Whether another adapter still gets a slot at once if ``version`` is let in."""
        has = version in self.active or version in self.pins
        return self.fits(version) and (has or self.shared() + 1 < self.loras)

    def recall(self) -> None:
        """Somebody waits: whatever is lent is wanted back."""
        while self.lent:
            self.lent.pop().recall()

    def shared(self) -> int:
        """Slots that versions without one of their own have now."""
        return sum(version not in self.pins for version in self.active) if self.pins else len(self.active)

    @property
    def stay(self) -> float:
        """Seconds that a request was in the engine lately, on average (Little's law; before many have ended,
        that those under way have been there)."""
        known = max(self.ended, self.running)
        return self.spent / known if known else 0.0

    def _clock(self, now: float) -> None:
        self.spent += self.running * (now - self.until)
        self.until = now
        if self.ended >= max(_REMEMBERED, 4 * self.running):
            self.spent, self.ended = self.spent / 2, self.ended // 2

    def take(self, tenant: str, version: Digest, now: float) -> None:
        self._clock(now)
        self.running += 1
        self.opened.setdefault(version, now)
        self.active[version] = self.active.get(version, 0) + 1
        self.of_tenant[tenant] = self.of_tenant.get(tenant, 0) + 1

    def turn(self, entry: Entry, now: float) -> None:
        """It was in the queue, and is in the engine now."""
        self.take(entry.tenant, entry.version, now)
        self.virtual = max(self.virtual, self.tags.get(entry.tenant, 0.0))
        self.tags[entry.tenant] = self.virtual + 1 / entry.weight
        self.turns[entry.tenant, entry.version] = self.turned = self.turned + 1

    def rest(self) -> None:
        """Nobody waits: what was before gives no rights and no debts."""
        self.closing.clear()
        self.tags.clear()
        self.turns.clear()
        self.virtual = 0.0

    def give(self, tenant: str, version: Digest, now: float) -> None:
        self._clock(now)
        self.ended += 1
        self.running -= 1
        left = self.active[version] - 1
        if left:
            self.active[version] = left
        else:
            del self.active[version], self.opened[version]
            self.closing.discard(version)
        left = self.of_tenant[tenant] - 1
        if left:
            self.of_tenant[tenant] = left
        else:
            del self.of_tenant[tenant]
