"""Whose turn it is where engines have too few names for everybody: tenants take turns.

A tenant may have as many aliases as it likes, and must not push others out by that. First comes one live
version of every tenant; then, within each level of importance, the n-th version of every tenant before the
n+1-th of any. A tenant's turns go to what is attested already, so that nothing moves without need.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import groupby

from registry.digests import Digest
from registry.ground import Ground
from registry.homes import own
from registry.rooms import Room
from registry.wants import IMPORTANCE


def due(ground: Ground, replicas: Sequence[int], homes: Sequence[Sequence[Room]]) -> list[int] | None:
    """Of each wanted version, how many engines it has a right to before others get what is left; None when
    there is room for everybody. ``homes``: where each is attested and may stay."""
    places = _Places(ground)
    wanted = places.possible(replicas)
    if places.suffice(wanted):
        return None
    found = [0] * len(wanted)
    for number in _claims(ground, wanted, homes):
        if places.take(number):
            found[number] += 1
        elif places.left <= 0:
            break
    return found


def first(ground: Ground, homes: Sequence[Sequence[Room]]) -> list[int]:
    """The one live version of every tenant that comes before all others, whoever is more important."""
    if not ground.wants or ground.wants[0].unpinned == ground.wants[-1].unpinned:
        return []  # the most important level begins with them
    live = [number for number, want in enumerate(ground.wants) if want.importance == IMPORTANCE["live"]]
    return _first(ground, [_in_turns(ground, level, homes) for level in _levels(ground, live)])


def _claims(ground: Ground, wanted: Sequence[int], homes: Sequence[Sequence[Room]]) -> Iterator[int]:
    """Numbers in the order of their turns, each as often as it wants engines."""
    numbers = [number for number, engines in enumerate(wanted) if engines]
    levels = [_in_turns(ground, level, homes) for level in _levels(ground, numbers)]
    firsts = _first(ground, levels)
    yield from firsts
    mine = set(firsts)
    for level in levels:
        for turn in range(1, max(wanted[number] for number in level) + 1):
            for number in level:
                if wanted[number] >= turn and not (turn == 1 and number in mine):
                    yield number


def _levels(ground: Ground, numbers: Iterable[int]) -> list[list[int]]:
    return [list(level) for _, level in groupby(numbers, key=lambda number: ground.wants[number][:2])]


def _first(ground: Ground, levels: Iterable[Iterable[int]]) -> list[int]:
    """``levels``: each in turns."""
    found: dict[tuple[str, Digest], int] = {}
    for level in levels:
        for number in level:
            want = ground.wants[number]
            if want.importance == IMPORTANCE["live"]:
                found.setdefault((want.tenant.id, want.base), number)
    return list(found.values())


def _in_turns(ground: Ground, level: list[int], homes: Sequence[Sequence[Room]]) -> list[int]:
    """By base, for engines of one are no room for another."""
    groups: dict[tuple[str, Digest], tuple[list[int], list[int]]] = {}
    for number in level:
        want = ground.wants[number]
        group = groups.setdefault((want.tenant.id, want.base), ([], []))
        group[not homes[number]].append(number)
    left = [iter(kept + new) for (_, _), (kept, new) in sorted(groups.items(), key=_lot)]
    found: list[int] = []
    while left:
        going = []
        for turns in left:
            following = next(turns, None)
            if following is not None:
                found.append(following)
                going.append(turns)
        left = going
    return found


class _Places:
    """Names that are left, by the engines that a version may be on. These sets are disjoint or one holds the
    other (engines for large adapters hold small ones too), so counting is enough."""

    def __init__(self, ground: Ground) -> None:
        self._of: list[int] = []
        sets: dict[frozenset[Room], int] = {}
        known: dict[tuple[Digest, int, int | None], int] = {}
        isolated = bool(ground.given)
        for number, want in enumerate(ground.wants):
            # All of one kind may be in the same rooms; who has engines of its own is a kind by itself.
            key = want[5], want[4], number if isolated and own(want[6]) else None
            at = known.get(key)
            if at is None:
                rooms = frozenset(room for tier in ground.sizes(number) for room in tier.rooms)
                at = known[key] = sets.setdefault(rooms, len(sets))
            self._of.append(at)
        self._sets = list(sets)
        self._left = [sum(room.free for room in rooms) for rooms in self._sets]
        self._around = [[at for at, other in enumerate(self._sets) if rooms <= other] for rooms in self._sets]
        """Of each, those that hold it, and itself."""

    @property
    def left(self) -> int:
        return max(self._left, default=0)

    def possible(self, replicas: Sequence[int]) -> list[int]:
        """How many engines each can have, were they empty."""
        most = [len(rooms) for rooms in self._sets]
        return [min(count, most[at]) for at, count in zip(self._of, replicas, strict=True)]

    def suffice(self, wanted: Sequence[int]) -> bool:
        totals = [0] * len(self._sets)
        for at, count in zip(self._of, wanted, strict=True):
            totals[at] += count
        return all(
            sum(totals[at] for at, around in enumerate(self._around) if other in around) <= left
            for other, left in enumerate(self._left)
        )

    def take(self, number: int) -> bool:
        around = self._around[self._of[number]]
        if any(self._left[at] <= 0 for at in around):
            return False
        for at in around:
            self._left[at] -= 1
        return True


def _lot(group: tuple[tuple[str, Digest], object]) -> tuple[bytes, Digest]:
    """Not by versions: somebody could make them until one is drawn early."""
    (tenant, base), _ = group
    return _drawn(tenant), base


@lru_cache(maxsize=16_384)
def _drawn(tenant: str) -> bytes:
    return blake2b(tenant.encode(), digest_size=16).digest()
