"""place and lease: which attested engine is asked, and the hold that shows its slot is in use.

The rule, in this order (docs/concepts/placement.md):

1. residency: only engines that were attested for the version, in the boot that was attested;
2. not those whose circuit is open, nor those that this request tried already;
3. load: those that are not busier than BOUND times the average are calm (there is always one);
4. affinity: of the calm ones, the one that the conversation hashes to, because its cache holds the prefix.

The same requests in the same order get the same engines, in any process.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from zlib import crc32

from registry.digests import Digest
from router.circuit import SERVED, Circuits
from router.errors import EngineTimeout
from router.headers import Headers
from router.places import Place
from router.resolution import CONVERSATION
from router.surfaces.surface import Question

K = TypeVar("K")
_log = logging.getLogger(__name__)
BOUND = 1.25
"""Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads" (2018): at 1.25 no engine gets
more than a quarter above its share, and a conversation moves only then."""
LEASE_SECONDS = 3600.0
_LOOK_SECONDS = 1.0
_PREFIX = 1024
"""Characters of each message that are hashed: more would not keep a cache warmer."""
_PREFIX_TOKENS = 256
"""Of a completion's token ids: about as much text."""
_PARTS = 8
_END = 64
_MASK = (1 << 64) - 1


class Lease:
    """A request's hold on a version in an engine's slot, from before it is sent until after the last byte."""

    __slots__ = ("ended", "place", "since", "until", "version")

    def __init__(
        self, place: Place, version: Digest, since: float, until: float, ended: Callable[[], object] | None
    ) -> None:
        self.place = place
        self.version = version
        self.since = since
        self.until = until
        self.ended = ended


class Leases:
    """Requests in flight. A slot is held while its count is above zero, and no longer than the TTL lasts."""

    def __init__(
        self, *, seconds: float = LEASE_SECONDS, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        """``seconds``: beyond any exchange that its timeouts let live. ``ticks``: monotonic seconds."""
        self.seconds = seconds
        self._ticks = ticks
        self._open: dict[Lease, None] = {}
        """In the order of their end: all live equally long."""
        self._slots: dict[tuple[str, Digest], int] = {}
        self._engines: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.expired = 0
        """Leases that outlived their TTL: each is a fault of the router or of its settings."""

    def take(self, place: Place, version: Digest, ended: Callable[[], object] | None = None) -> Lease:
        """``ended`` is called if the lease expires: whoever holds it has lost it and must let go."""
        now = self._ticks()
        lease = Lease(place, version, now, now + self.seconds, ended)
        self._open[lease] = None
        slot, engine = (place.engine, version), place.engine
        self._slots[slot] = self._slots.get(slot, 0) + 1
        self._engines[engine] = self._engines.get(engine, 0) + 1
        return lease

    def give(self, lease: Lease) -> None:
        """Back; once is enough, and after it expired nothing is left to give."""
        if self._open.pop(lease, _GONE) is None:
            _release(self._slots, (lease.place.engine, lease.version))
            _release(self._engines, lease.place.engine)

    @contextmanager
    def hold(
        self, place: Place, version: Digest, ended: Callable[[], object] | None = None
    ) -> Iterator[Lease]:
        lease = self.take(place, version, ended)
        try:
            yield lease
        finally:
            self.give(lease)

    def sweep(self) -> int:
        """Release and report what outlived its TTL; how many there were. Looks at no others."""
        now, found = self._ticks(), 0
        while self._open and (lease := next(iter(self._open))).until <= now:
            self.give(lease)
            found += 1
            _log.error(
                "a lease on %s of engine %s outlived %.0f s and was released",
                lease.version.short,
                lease.place.engine,
                self.seconds,
            )
            if lease.ended is not None:
                lease.ended()
        self.expired += found
        return found

    async def start(self) -> None:
        """Look for expired leases now and then, also when nobody asks for anything."""
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self.sweep()
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def on_slot(self, engine: str, version: Digest) -> int:
        return self._slots.get((engine, version), 0)

    def on_engine(self, engine: str) -> int:
        return self._engines.get(engine, 0)

    def engines(self) -> dict[str, int]:
        """Engine -> requests in flight, busy ones only."""
        return dict(self._engines)


_GONE = object()


def _release(counts: dict[K, int], key: K) -> None:
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]


class Placement:
    """Only this router's requests count as load: what other routers send is seen through its effects."""

    __slots__ = ("circuits", "leases")

    def __init__(self, leases: Leases, circuits: Circuits) -> None:
        self.leases = leases
        self.circuits = circuits

    def visit(
        self,
        place: Place,
        version: Digest,
        work: "asyncio.Task[Any] | None" = None,
        tenant: str | None = None,
    ) -> "Visit":
        """Around everything that is done with an engine for one request: its lease, and what its circuit
        learns from how it ended. Leaves with EngineTimeout when the lease expires meanwhile.

        ``work``: the task that asks, if it is known already. ``tenant``: for whom."""
        return Visit(self, place, version, work, tenant)

    def next(
        self, places: Sequence[Place], affinity: int, tried: Container[str] = (), tenant: str | None = None
    ) -> Place | None:
        """The engine to ask now; None when there is none left that may be asked."""
        admits = self.circuits.admits
        if len(places) == 1:
            only = places[0]
            return only if only.engine not in tried and admits(only, tenant) else None
        return pick(
            [place for place in places if place.engine not in tried and admits(place, tenant)],
            self.leases.on_engine,
            affinity,
        )


class Visit:
    __slots__ = ("_expired", "_lease", "_place", "_placement", "_tenant", "_version", "_work")

    def __init__(
        self,
        placement: Placement,
        place: Place,
        version: Digest,
        work: "asyncio.Task[Any] | None",
        tenant: str | None,
    ) -> None:
        self._placement = placement
        self._place = place
        self._version = version
        self._work = work
        self._tenant = tenant
        self._expired = False

    def __enter__(self) -> None:
        if self._work is None:
            self._work = asyncio.current_task()
        self._placement.circuits.asked(self._place, self._tenant)
        self._lease = self._placement.leases.take(self._place, self._version, self._expire)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._placement.leases.give(self._lease)
        if error is None or isinstance(error, SERVED):
            self._placement.circuits.succeeded(self._place)
        elif self._expired and isinstance(error, asyncio.CancelledError) and self._work is not None:
            self._work.uncancel()
            late = EngineTimeout()
            self._failed(late)
            raise late from None
        else:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        self._placement.circuits.failed(self._place, error, self._tenant, self._lease.since)

    def _expire(self) -> None:
        """Nothing that an engine does may hold its slot for longer: what is under way there ends."""
        self._expired = True
        if self._work is not None:
            self._work.cancel()


def pick(places: Sequence[Place], on_engine: Callable[[str], int], affinity: int) -> Place | None:
    """Steps 3 and 4 of the rule: the calm place that ``affinity`` prefers (weighted rendezvous hashing)."""
    if len(places) < 2:
        return places[0] if places else None
    loads = [on_engine(place.engine) for place in places]
    share = BOUND * (sum(loads) + 1) / sum([place.capacity for place in places])
    best, least = None, math.inf
    for place, load in zip(places, loads, strict=True):
        if load < math.ceil(share * place.capacity):
            cost = _cost(affinity, place)
            if cost < least:
                best, least = place, cost
    return best


def _cost(affinity: int, place: Place) -> float:
    """Exponentially distributed with the capacity as its rate, so each engine wins in proportion to it."""
    mixed = (affinity ^ place.seed) * 0xBF58476D1CE4E5B9 & _MASK  # the finalizer of splitmix64
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
    return -math.log(((mixed ^ mixed >> 31) + 1) / 18446744073709551616.0) / place.capacity


def affinity_of(headers: Headers, question: Question) -> int:
    """What requests of one conversation have in common: the id that the client names, else how it begins:
    the system prompt and the first message after it, or the first prompt of a completion or an embedding.

    CRC-32 is enough: what it decides is only where a cache is warm.
    """
    named = headers.every(CONVERSATION)
    return crc32((named[0] if named else _opening(question)).encode("utf-8", "surrogatepass"))


def _opening(question: Question) -> str:
    texts = [_beginning(message.get("content")) for message in question.messages[:2]]
    if not texts and question.prompts:
        prompt = question.prompts[0]
        texts = [prompt[:_PREFIX] if isinstance(prompt, str) else str(prompt[:_PREFIX_TOKENS])]
    return "\0".join(texts)


def _beginning(content: Any) -> str:
    """Of a message's content: a text, or parts, of which an image or a sound may be the only one."""
    if isinstance(content, str):
        return content[:_PREFIX]
    if isinstance(content, list):
        return "\0".join(_part(value) for part in content[:_PARTS] for value in part.values())
    return ""


def _part(value: Any) -> str:
    if isinstance(value, dict):  # {"url": …}, {"data": …, "format": …}
        return "\0".join(_part(each) for each in value.values())
    # Files of one kind may begin alike for kilobytes; they do not end alike.
    return value[:_PREFIX] + value[-_END:] if isinstance(value, str) else ""
