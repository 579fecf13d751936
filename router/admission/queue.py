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

A pinned version has a slot of its own, kept free for it: others together work with what is left, and it waits
for none of them.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from registry.digests import Digest
from router.admission.lane import Entry, Lane
from router.admission.loan import Loan
from router.errors import Overloaded
from router.places import Place

_MOST_LANES = 1000
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


class Queue:
    """In front of all engines of one router. Routers that know of each other share an engine equally."""

    def __init__(self, patience: Patience, *, ticks: Callable[[], float]) -> None:
        """``ticks``: monotonic seconds."""
        self.patience = patience
        self._ticks = ticks
        self._lanes: dict[str, Lane] = {}
        self._waiting: Counter[str] = Counter()
        self._entries: dict[Entry, None] = {}
        self._routers = 1
        self._pins: Mapping[str, frozenset[Digest]] = {}
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

    def pin(self, pins: Mapping[str, frozenset[Digest]]) -> None:
        """Engine -> the versions that have a slot of their own there, from now on."""
        if pins is self._pins:
            return
        self._pins = pins
        for engine, lane in self._lanes.items():
            if lane.pins != pins.get(engine, frozenset()):
                lane.pins = pins.get(engine, frozenset())
                self._size(lane)
                self._pump(lane)

    def enter(self, place: Place, tenant: str, version: Digest) -> bool:
        """Take a place in an engine that has room and nobody waits for; :meth:`leave` gives it back."""
        lane = self._lanes.get(place.engine)
        if lane is None or lane.capacity != place.capacity:
            lane = self._lane(place)
        # Who waits while a pinned version fits waits for another slot than its own.
        if (lane.flows and version not in lane.pins) or not lane.fits(version):
            return False
        lane.take(tenant, version, self._ticks())
        return True

    def lend(self, place: Place, tenant: str, version: Digest, loan: Loan) -> bool:
        """Take a place that no request misses now; :meth:`give_back` gives it back, recalled or not."""
        lane = self._lane(place)
        if lane.flows or not lane.spares(version):
            return False
        lane.take(tenant, version, self._ticks())
        lane.lent.add(loan)
        return True

    def give_back(self, place: Place, tenant: str, version: Digest, loan: Loan) -> None:
        self._lanes[place.engine].lent.discard(loan)
        self.leave(place, tenant, version)

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
        entry = Entry(tenant, version, weight, places, self._ticks() - waited)
        self.waited += 1
        self._waiting[tenant] += 1
        self._entries[entry] = None
        for place in places:
            lane = self._lane(place)
            lane.flows.setdefault((tenant, version), deque()).append(entry)
            lane.recall()
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
            lane.pins = self._pins.get(place.engine, frozenset())
            self._size(lane)
        elif lane.capacity != place.capacity:  # the engine was started again with another size
            lane.capacity = place.capacity
            self._size(lane)
        return lane

    def _size(self, lane: Lane) -> None:
        lane.slots = max(1, self.patience.running // self._routers)
        # A pinned version has the same slot whichever router asks for it.
        lane.loras = max(1, (lane.capacity - len(lane.pins)) // self._routers)

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

    def _aged(self, entry: Entry) -> None:
        for engine in entry.places:
            if entry in self._entries:
                self._pump(self._lanes[engine])

    def _refuse(self, entry: Entry) -> None:
        if entry in self._entries:
            self.refused += 1
            error = self._overloaded()
            self._forget(entry)
            if not entry.granted.done():
                entry.granted.set_exception(error)

    def _overloaded(self) -> Overloaded:
        """To come back after as long as the first in the queue has waited now."""
        return Overloaded(max(1, math.ceil(self.oldest)))

    def _remove(self, entry: Entry) -> None:
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

    def _forget(self, entry: Entry) -> None:
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

    def _next(self, lane: Lane) -> Entry | None:
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
        rounds = math.ceil(waiting / max(1, lane.loras))
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
            if version not in lane.active and version not in lane.pins and flow[0].since <= aged
        }
        free = max(0, lane.loras - lane.shared())
        had = now - self._turn(lane, len(outside))
        over = [
            version for version in lane.active if lane.opened[version] <= had and version not in lane.pins
        ]
        lane.closing -= lane.pins
        wanted = min(max(0, len(outside) - free), len(over))
        while len(lane.closing) > wanted:
            lane.closing.pop()
        if len(lane.closing) < wanted:
            still = sorted(
                (version for version in over if version not in lane.closing),
                key=lambda version: (lane.active[version], version),
            )
            lane.closing.update(still[: wanted - len(lane.closing)])
