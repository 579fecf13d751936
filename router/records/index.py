"""Where each outcome is stored, for receipts: in memory that does not grow and that tenants share fairly."""

from array import array
from collections import deque
from collections.abc import Iterator

from router.records.segments import Place

_OFFSET_BITS = 40
_FULL = 0.75
"""Of a block's slots."""
_LEAST_SLOTS = 1024
_BLOCKS = 16
"""The whole has room for that many of the largest blocks: few, because a search looks into each."""
_SHELVES = 8192
"""And for that many of the smallest: tenants with something to find."""
_SMALLEST = 16


class _Block:
    """A table with open addressing, 12 bytes a slot (a tag of the id and a place); a dict took 80. Tags are
    not unique: whoever looks compares what is stored there."""

    __slots__ = ("left", "places", "tags")

    def __init__(self, slots: int) -> None:
        self.tags, self.places = array("I", bytes(4 * slots)), array("Q", bytes(8 * slots))
        self.left = int(slots * _FULL)


class _Shelf:
    """A tenant's blocks, oldest first; each as large as all before it, so that there are few."""

    __slots__ = ("blocks", "slots")

    def __init__(self) -> None:
        self.blocks: deque[_Block] = deque()
        self.slots = 0


class Index:
    """At least the newest ``least`` outcomes of all tenants together: 200,000 in 12 MiB.

    Where there is no room, the tenant that has most gives up its oldest: however much one asks, and whatever
    it is refused, what a tenant with less can find stays.
    """

    def __init__(self, least: int) -> None:
        self._slots = max(_LEAST_SLOTS, 1 << int(2 * least / _FULL - 1).bit_length())
        self._smallest = max(_SMALLEST, self._slots // _SHELVES)
        self._largest = self._slots // _BLOCKS
        self._free = self._slots
        self._shelves: dict[str, _Shelf] = {}
        """Who grew last is last."""

    def add(self, tenant: str, record: str, place: Place) -> None:
        shelf = self._shelves.get(tenant)
        if shelf is None or not shelf.blocks[-1].left:
            shelf = self._grow(tenant)
        block = shelf.blocks[-1]
        tags = block.tags
        mask = len(tags) - 1
        mixed = hash(record)
        at = mixed & mask
        while tags[at]:
            at = (at + 1) & mask
        tags[at] = _tag(mixed)
        block.places[at] = place.segment << _OFFSET_BITS | place.offset
        block.left -= 1

    def find(self, tenant: str, record: str) -> Iterator[Place]:
        """Places that may hold it, the newest block first; a handful at most."""
        shelf = self._shelves.get(tenant)
        if shelf is None:
            return
        mixed = hash(record)
        tag = _tag(mixed)
        for block in reversed(shelf.blocks):
            tags = block.tags
            mask = len(tags) - 1
            at = mixed & mask
            while tags[at]:
                if tags[at] == tag:
                    stored = block.places[at]
                    yield Place(stored >> _OFFSET_BITS, stored & ((1 << _OFFSET_BITS) - 1))
                at = (at + 1) & mask

    def _grow(self, tenant: str) -> _Shelf:
        shelf = self._shelves.pop(tenant, None) or _Shelf()
        had = shelf.slots
        slots = min(max(self._smallest, had), self._largest)
        while self._free < slots:
            self._shrink(shelf, had)
        self._free -= slots
        shelf.slots += slots
        shelf.blocks.append(_Block(slots))
        self._shelves[tenant] = shelf
        return shelf

    def _shrink(self, asking: _Shelf, had: int) -> None:
        """Of the tenant that has most, and of the one that asks (and ``had``) rather than of an equal."""
        tenant, most = "", asking
        taken = self._slots - self._free - asking.slots
        if taken == len(self._shelves) * self._smallest:  # nobody has more than the smallest
            if not had:
                tenant, most = next(iter(self._shelves.items()))
        else:
            for name, shelf in self._shelves.items():
                if shelf.slots > had:
                    tenant, most, had = name, shelf, shelf.slots
        slots = len(most.blocks.popleft().tags)
        most.slots -= slots
        self._free += slots
        if not most.blocks and most is not asking:
            del self._shelves[tenant]


def _tag(mixed: int) -> int:
    """Never 0, which is an empty slot. Of other bits than the slot."""
    return (mixed >> 31 & 0xFFFFFFFF) or 1
