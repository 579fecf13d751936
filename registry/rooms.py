"""How much every engine holds, and which of them a version prefers."""

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b

from registry.digests import Digest
from registry.models import EngineState

_MASK = (1 << 64) - 1


class Room:
    """What is left of one engine while versions are handed out; they go by their number."""

    __slots__ = (
        "base",
        "engine",
        "fits",
        "free",
        "held",
        "leaving",
        "lora",
        "pinned",
        "pins",
        "placed",
        "rank",
        "seed",
        "stale",
        "weight",
    )

    def __init__(self, engine: EngineState, *, stale: bool = False) -> None:
        """``stale``: it was given away in this boot, which holds what others had there."""
        self.engine = engine.engine
        self.base = engine.base
        self.lora = engine.merged is None
        self.stale = stale
        self.rank = math.inf if engine.max_rank is None else engine.max_rank
        self.fits = min(self.rank, engine.slot_rank or math.inf)
        """The largest rank that it takes without a fresh boot."""
        self.weight = engine.names or engine.max_loras
        self.free = self.weight
        self.pins = engine.max_loras - 1
        """Device slots that may be kept free for somebody: one is left for all others."""
        self.seed = _seed(engine.engine)
        self.held: set[int] = set()
        self.placed: list[int] = []
        self.leaving: set[int] = set()
        self.pinned: set[int] = set()

    @property
    def load(self) -> float:
        return len(self.placed) / self.weight

    @property
    def load_with_one_more(self) -> float:
        return (len(self.placed) + 1) / self.weight

    def cost(self, version: Digest) -> float:
        """The less, the more the version prefers it."""
        return _cost(int(version[-16:], 16) ^ self.seed, self.weight)


class Tier:
    """Rooms for one largest rank."""

    __slots__ = ("_signature", "members", "rooms")

    def __init__(self, rooms: Iterable[Room]) -> None:
        self.rooms = tuple(sorted(rooms, key=lambda room: room.engine))
        self.members = frozenset(self.rooms)
        self._signature = ",".join(f"{room.seed}:{room.weight}" for room in self.rooms)

    def preferred(self, version: Digest) -> Iterator[Room]:
        """All of them, in an order that depends on the version and each room alone: without one room, the
        order of the others is the same."""
        for index in _order(version, self._signature):
            yield self.rooms[index]


def tiers(rooms: Iterable[Room], rank: int) -> tuple[Tier, ...]:
    """Of the rooms large enough, those of the smallest rank first: a small adapter in a slot for large ones
    costs what a large one costs. Of one rank, those first that need no fresh boot for it."""
    alike: dict[tuple[float, bool], list[Room]] = {}
    for room in rooms:
        if room.lora and room.rank >= rank:
            alike.setdefault((room.rank, room.fits < rank), []).append(room)
    return tuple(Tier(alike[size]) for size in sorted(alike))


@lru_cache(maxsize=4096)
def _seed(engine: str) -> int:
    return int.from_bytes(blake2b(engine.encode(), digest_size=8).digest(), "big")


@lru_cache(maxsize=65_536)
def _order(version: Digest, signature: str) -> tuple[int, ...]:
    """Kept: it is asked again at each change of the feed, and it is most of the time (5 us for 16 rooms)."""
    key = int(version[-16:], 16)
    costs = [_cost(key ^ seed, weight) for seed, weight in _parsed(signature)]
    return tuple(sorted(range(len(costs)), key=costs.__getitem__))


@lru_cache(maxsize=256)
def _parsed(signature: str) -> tuple[tuple[int, int], ...]:
    pairs = (each.split(":") for each in signature.split(","))
    return tuple((int(seed), int(weight)) for seed, weight in pairs)


def _cost(mixed: int, weight: int) -> float:
    """Exponentially distributed with the weight as its rate, so each room wins in proportion to it."""
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK  # the finalizer of splitmix64
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
    return -math.log(((mixed ^ mixed >> 31) + 1) / 18446744073709551616.0) / weight
