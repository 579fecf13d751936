"""Where each outcome is stored, for receipts: in memory that does not grow."""

from array import array
from collections.abc import Iterator

from router.records.segments import Place

_OFFSET_BITS = 40
_LOAD = 0.75


class Index:
    """The newest ``least`` outcomes, and up to twice as many.

    Two tables with open addressing; when one is full, the older one is emptied and taken. An entry has 12
    bytes (a tag of the id and a place), so that 200,000 outcomes take 12 MiB; a dict of them took 80. Tags
    are not unique: whoever looks compares what is stored there.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._slots = 1 << max(4, int(least / _LOAD).bit_length())
        self._young, self._old = self._table(), self._table()
        self._filled = 0

    def add(self, record: str, place: Place) -> None:
        if self._filled == self._least:
            self._young, self._old = self._table(), self._young
            self._filled = 0
        tags, places = self._young
        tag, at = self._start(record)
        mask = self._slots - 1
        while tags[at]:
            at = (at + 1) & mask
        tags[at] = tag
        places[at] = place.segment << _OFFSET_BITS | place.offset
        self._filled += 1

    def find(self, record: str) -> Iterator[Place]:
        """Places that may hold it, the newest table first; a handful at most."""
        tag, start = self._start(record)
        mask = self._slots - 1
        for tags, places in (self._young, self._old):
            at = start
            while tags[at]:
                if tags[at] == tag:
                    yield Place(places[at] >> _OFFSET_BITS, places[at] & ((1 << _OFFSET_BITS) - 1))
                at = (at + 1) & mask

    def _start(self, record: str) -> tuple[int, int]:
        """Tag (never 0, which is an empty place) and first slot; both from the hash that the string keeps."""
        mixed = hash(record)
        return (mixed >> 31 & 0xFFFFFFFF) or 1, mixed & (self._slots - 1)

    def _table(self) -> tuple["array[int]", "array[int]"]:
        return array("I", bytes(4 * self._slots)), array("Q", bytes(8 * self._slots))
