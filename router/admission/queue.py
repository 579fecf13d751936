"""Whose request a busy engine takes next. An engine that has room takes everybody at once.

vLLM serves an adapter without a LoRA slot only when another adapter has nothing to do, so two hot ones keep
a third waiting for ever. Here no engine is given requests of more adapters than it has slots, so that none
waits inside it; who waits, waits here, where this is the order:

1. the tenant with the fewest requests in the engine for its weight; one that has waited for half of
   ``longest`` counts as having none;
2. of equals the tenant whose last turn is longest ago (start-time fair queueing: Goyal, Vin and Cheng, 1996),
   of its adapters the one whose last turn is, of its requests the oldest.

So however much a tenant asks, it delays another by its turns and never by its backlog. A request that has
waited for ``aging`` while its adapter has no slot closes one, of those that had theirs for a turn: the
adapter with the fewest requests gets no new ones until its last has ended. Nobody waits longer than
``longest``: that is answered 503.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from registry.digests import Digest
from router.errors import Overloaded
from router.places import Place

_MOST_LANES = 1000
_REMEMBERED = 64
"""Requests whose time in the engine is remembered at least; of more, half are forgotten."""
_STAYS = 2.0
"""Turns in times that a request stays in the engine. 16 adapters on 4 slots have 0.95 of the tokens a second
of 4 adapters, 0.92 on an engine that is 2.5 times slower; with turns of half a second 0.88 and 0.79; three
times gain nothing, and others wait half as long again (tests/unit/router/admission/test_throughput.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How many may be in an engine and in front of all, and how long they wait there, in seconds."""

    running: int = 256
    """In one engine at a time, of all routers: vLLM's ``max_num_seqs``; more would only wait inside."""
    waiting: int = 1000
    aging: float = 1.0
    turn: float = 0.5
    """For which at least a slot stays with its adapter, so that what ends in its batch is filled up. It stays
    for twice as long as requests are in the engine, where that is longer and everybody still gets a turn in
    half of ``longest``: with a turn that ends before its first requests do, nothing is ever filled up."""
    longest: float = 30.0

    def __post_init__(self) -> None:
        if self.running < 1 or self.waiting < 0 or self.turn < 0 or not 0 < self.aging <= self.longest:
            raise ValueError("patience needs running >= 1, waiting and turn >= 0 and 0 < aging <= longest")


class _Entry:
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
        "loras",
        "of_tenant",
        "opened",
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
        self.running = 0
        self.active: dict[Digest, int] = {}
        self.opened: dict[Digest, float] = {}
        """When each of them got its slot."""
        self.of_tenant: dict[str, int] = {}
        self.closing: set[Digest] = set()
        self.flows: dict[tuple[str, Digest], deque[_Entry]] = {}
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
        return len(self.active) < self.loras

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

    def turn(self, entry: _Entry, now: float) -> None:
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


class Queue:
    """In front of all engines of one router. Routers that know of each other share an engine equally."""

    def __init__(self, patience: Patience, *, ticks: Callable[[], float]) -> None:
        """``ticks``: monotonic seconds."""
        self.patience = patience
        self._ticks = ticks
        self._lanes: dict[str, Lane] = {}
        self._waiting: Counter[str] = Counter()
        self._entries: dict[_Entry, None] = {}
        self._routers = 1
        self.waited = 0
        """Requests that did not get in at once."""
        self.refused = 0
        """Of these, those that never did."""

    @property
    def waiting(self) -> int:
        return len(self._entries)

    @property
    def oldest(self) -> float:
        """Seconds that the first in the queue has waited."""
        return self._ticks() - next(iter(self._entries)).since if self._entries else 0.0

    def share(self, routers: int) -> None:
        """How many routers there are, this one included. Each gets at least one slot: with more routers than
        an engine has slots, the engine itself decides again."""
        if routers == self._routers:
            return
        self._routers = max(1, routers)
        for lane in self._lanes.values():
            self._size(lane)
            self._pump(lane)

    def enter(self, place: Place, tenant: str, version: Digest) -> bool:
        """Take a place in an engine that has room and nobody waits for; :meth:`leave` gives it back."""
        lane = self._lanes.get(place.engine)
        if lane is None or lane.capacity != place.capacity:
            lane = self._lane(place)
        if lane.flows or not lane.fits(version):
            return False
        lane.take(tenant, version, self._ticks())
        return True

    async def wait(
        self,
        places: Sequence[Place],
        tenant: str,
        version: Digest,
        *,
        weight: int = 1,
        waited: float = 0.0,
    ) -> Place:
        """The first place in any of them for which it is this request's turn. Raises Overloaded.

        ``waited``: seconds that it did before, for another place.
        """
        self._make_room(tenant)
        entry = _Entry(tenant, version, weight, places, self._ticks() - waited)
        self.waited += 1
        self._waiting[tenant] += 1
        self._entries[entry] = None
        for place in places:
            self._lane(place).flows.setdefault((tenant, version), deque()).append(entry)
        later = asyncio.get_running_loop().call_later
        entry.timers = [
            later(self.patience.aging, self._aged, entry),
            later(max(0.0, self.patience.longest - waited), self._refuse, entry),
        ]
        self._aged(entry)
        try:
            return await entry.granted
        except asyncio.CancelledError:
            if entry in self._entries:
                self._forget(entry)
            elif not entry.granted.cancelled() and entry.granted.exception() is None:
                self.leave(entry.granted.result(), tenant, version)
            raise

    def leave(self, place: Place, tenant: str, version: Digest) -> None:
        lane = self._lanes[place.engine]
        lane.give(tenant, version, self._ticks())
        if lane.flows:
            self._pump(lane)

    def _lane(self, place: Place) -> Lane:
        lane = self._lanes.get(place.engine)
        if lane is None:
            if len(self._lanes) >= _MOST_LANES:
                self._lanes = {
                    engine: known for engine, known in self._lanes.items() if known.running or known.flows
                }
            lane = self._lanes[place.engine] = Lane(place.capacity)
            self._size(lane)
        elif lane.capacity != place.capacity:  # the engine was started again with another size
            lane.capacity = place.capacity
            self._size(lane)
        return lane

    def _size(self, lane: Lane) -> None:
        lane.slots = max(1, self.patience.running // self._routers)
        lane.loras = max(1, lane.capacity // self._routers)

    def _make_room(self, tenant: str) -> None:
        """In a full queue the tenant with the most in it loses its newest (as FQ-CoDel does with flows,
        RFC 8290), so that one that floods the queue cannot keep the others out. Raises Overloaded."""
        if len(self._entries) < self.patience.waiting:
            return
        fattest, most = max(self._waiting.items(), key=lambda item: item[1], default=(tenant, 0))
        if self._waiting[tenant] + 1 >= most:
            self.refused += 1
            raise self._overloaded()
        self._refuse(next(entry for entry in reversed(self._entries) if entry.tenant == fattest))

    def _aged(self, entry: _Entry) -> None:
        for engine in entry.places:
            if entry in self._entries:
                self._pump(self._lanes[engine])

    def _refuse(self, entry: _Entry) -> None:
        if entry in self._entries:
            self.refused += 1
            error = self._overloaded()
            self._forget(entry)
            if not entry.granted.done():
                entry.granted.set_exception(error)

    def _overloaded(self) -> Overloaded:
        """To come back after as long as the first in the queue has waited now."""
        return Overloaded(max(1, math.ceil(self.oldest)))

    def _remove(self, entry: _Entry) -> None:
        """From everywhere."""
        del self._entries[entry]
        self._waiting[entry.tenant] -= 1
        if not self._waiting[entry.tenant]:
            del self._waiting[entry.tenant]
        for timer in entry.timers:
            timer.cancel()
        name = (entry.tenant, entry.version)
        for engine in entry.places:
            lane = self._lanes[engine]
            lane.flows[name].remove(entry)
            if not lane.flows[name]:
                del lane.flows[name]

    def _forget(self, entry: _Entry) -> None:
        """It is not served: what it kept closed for itself opens again."""
        self._remove(entry)
        for engine in entry.places:
            self._close(self._lanes[engine])

    def _pump(self, lane: Lane) -> None:
        """Let in whoever can be, in order, and only then close a slot: an adapter that gets one takes all
        that wait for it along. Closed after the first of them, a slot worked on one request at a time, and 16
        adapters on 4 slots had 0.37 of the tokens a second of 4 (``python -m bench.engines``)."""
        touched = {lane: None}
        self._close(lane)  # turns end while nothing happens, too
        while lane.flows and lane.running < lane.slots and (entry := self._next(lane)) is not None:
            engine = next(engine for engine in entry.places if self._lanes[engine] is lane)
            lane.turn(entry, self._ticks())
            self._remove(entry)
            entry.granted.set_result(entry.places[engine])
            touched |= dict.fromkeys(self._lanes[other] for other in entry.places)
        for other in touched:
            self._close(other)

    def _next(self, lane: Lane) -> _Entry | None:
        long = self._ticks() - self.patience.longest / 2
        best, least = None, (math.inf, 0.0, 0, 0.0)
        for flow, entries in lane.flows.items():
            head = entries[0]
            if not lane.fits(head.version):
                continue
            rank = (
                0.0 if head.since <= long else lane.of_tenant.get(head.tenant, 0) / head.weight,
                max(lane.virtual, lane.tags.get(head.tenant, 0.0)),
                lane.turns.get(flow, 0),
                head.since,
            )
            if rank < least:
                best, least = head, rank
        return best

    def _turn(self, lane: Lane, waiting: int) -> float:
        rounds = math.ceil(waiting / lane.loras)
        fair = self.patience.longest / 2 / rounds - lane.stay if rounds else math.inf
        return max(self.patience.turn, min(_STAYS * lane.stay, fair))

    def _close(self, lane: Lane) -> None:
        """As many adapters as aged requests of adapters without a slot need, of those that had their turn."""
        if not lane.flows:
            lane.rest()
            return
        now = self._ticks()
        aged = now - self.patience.aging
        outside = {
            version
            for (_, version), flow in lane.flows.items()
            if version not in lane.active and flow[0].since <= aged
        }
        free = max(0, lane.loras - len(lane.active))
        had = now - self._turn(lane, len(outside))
        over = [version for version in lane.active if lane.opened[version] <= had]
        wanted = min(max(0, len(outside) - free), len(over))
        while len(lane.closing) > wanted:
            lane.closing.pop()
        if len(lane.closing) < wanted:
            still = sorted(
                (version for version in over if version not in lane.closing),
                key=lambda version: (lane.active[version], version),
            )
            lane.closing.update(still[: wanted - len(lane.closing)])
