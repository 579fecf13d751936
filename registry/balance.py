"""Engines that came later take over from those that were first: a few versions at a time, and only when the
difference is worth it."""

from collections.abc import Callable, Iterable, Sequence

from registry.rooms import Room
from registry.wants import Want

BOUND = 1.25
"""An engine gives one of its versions to another only while it is fuller than this times what the other would
be with it (per name that each holds). So nothing moves for one version more or less, and a version that has
moved does not move back: before that, the difference would have to turn round. The number is that of
consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2018)."""
MOVES = 4
"""Versions on their way to one engine at a time: it loads one after the other, and each is followed by a look
at all the rest."""
FILLED = 0.8
"""An engine for small adapters takes those that larger ones hold up to this share of its names: the rest is
for what is new, which would go to the larger ones otherwise."""
Move = Callable[[int, Room, Room], bool]


class Balance:
    """Over the engines that stand for each other."""

    def __init__(self, wants: Sequence[Want], slots: Sequence[Sequence[Room]], move: Move) -> None:
        """``move``: a version from one room to another, if that can be."""
        self._wants = wants
        self._slots = slots
        self._move = move
        self._orders: dict[tuple[str, str], list[int]] = {}

    def rooms(self, rooms: Iterable[Room]) -> None:
        """Rooms of one base and one owner."""
        by_rank: dict[float, list[Room]] = {}
        for room in rooms:
            by_rank.setdefault(room.rank, []).append(room)
        arriving = {room.engine: 0 for alike in by_rank.values() for room in alike}
        ranks = sorted(by_rank)
        for place, rank in enumerate(ranks[1:], start=1):
            smaller = [room for less in ranks[:place] for room in by_rank[less]]
            for room in by_rank[rank]:
                self._down(room, smaller, arriving)
        for alike in by_rank.values():
            while self._even(alike, arriving):
                pass

    def _down(self, large: Room, smaller: Sequence[Room], arriving: dict[str, int]) -> None:
        """What fits into an engine for smaller adapters goes there."""
        for number in sorted(large.placed):
            if not self._movable(number, large):
                continue
            for room in smaller:
                if room.load_with_one_more <= FILLED and self._try(number, large, room, arriving):
                    break

    def _even(self, alike: Sequence[Room], arriving: dict[str, int]) -> bool:
        """One move from the fullest engine that can give to the emptiest that can take."""
        if len(alike) < 2:
            return False
        for giver in sorted(alike, key=lambda room: (-room.load, room.engine)):
            for taker in sorted(alike, key=lambda room: (room.load_with_one_more, room.engine)):
                if giver.load <= BOUND * taker.load_with_one_more:
                    break
                if arriving[taker.engine] >= MOVES or taker.free <= 0:
                    continue
                for number in self._order(giver, taker):
                    if number in giver.placed and self._try(number, giver, taker, arriving):
                        return True
        return False

    def _try(self, number: int, giver: Room, taker: Room, arriving: dict[str, int]) -> bool:
        if arriving[taker.engine] >= MOVES or taker.fits < self._wants[number].rank:
            return False
        if not self._move(number, giver, taker):
            return False
        arriving[taker.engine] += taker not in self._slots[number]
        return True

    def _order(self, giver: Room, taker: Room) -> list[int]:
        """Those that would have gone to the taker, had it been there, come first."""
        key = giver.engine, taker.engine
        found = self._orders.get(key)
        if found is None:
            wants = self._wants
            found = [
                number for number in giver.placed if number not in taker.held and self._movable(number, giver)
            ]
            found.sort(key=lambda number: (taker.cost(wants[number].version), number))
            self._orders[key] = found
        return found

    def _movable(self, number: int, giver: Room) -> bool:
        """It was seen where it is: what is still loading stays. What is prepared does too, for somebody waits
        for it to be everywhere."""
        return giver in self._slots[number] and self._wants[number].why != "prepared"
