"""Any subtree's root without reading all leaves, from the few levels of the tree that are stored.

Stored are the nodes at heights 0, 8, 16 …: one node in 256 leaves on top of the leaves themselves, as in the
tiles of C2SP tlog-tiles. Everything between is hashed again when it is asked for: a proof in a log of a
million entries reads at most two tiles a level, six in all.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from registry.errors import LogCorrupt
from registry.log.merkle import SIZE, folded, node_hash

STRIDE: Final = 8
"""Levels from one stored level to the next; a tile is 2**8 nodes (8 KiB) wide."""
WIDTH: Final = 1 << STRIDE
_KEPT: Final = 512
"""Tiles held at a time, about 16 KiB each with what is hashed over them: 8 MiB."""

Nodes: TypeAlias = Callable[[int, int, int], Sequence[bytes]]
"""(height, start, end) -> the stored nodes at positions start to end-1 of that height, in order."""


class Tiles:
    """A reader of one tree. Fit for an append-only tree at any size it has had, or a still one."""

    def __init__(self, nodes: Nodes, *, size: int) -> None:
        """``size``: how many leaves are stored; subtrees beyond it do not exist."""
        self._nodes = nodes
        self.size = size
        self._pyramids: dict[tuple[int, int], list[list[bytes]]] = {}

    def subtree(self, height: int, position: int) -> bytes:
        """The root of the complete subtree number ``position`` of that height (2**height leaves).

        Raises LogCorrupt when what is stored cannot be the tree.
        """
        stored = height - height % STRIDE
        first = position << height - stored
        pyramid = self._pyramid(stored, first // WIDTH)
        return pyramid[height - stored][first % WIDTH >> height - stored]

    def root(self, size: int) -> bytes:
        """Of the tree as it was at ``size`` leaves."""
        return self.range_root(0, size)

    def range_root(self, start: int, end: int) -> bytes:
        """Of the leaves ``start`` to ``end - 1``; RFC 6962 must split a tree at ``start``."""
        peaks = []
        while start < end:
            height = (end - start).bit_length() - 1
            peaks.append(self.subtree(height, start >> height))
            start += 1 << height
        return folded(peaks)

    def _pyramid(self, height: int, tile: int) -> list[list[bytes]]:
        """The nodes of a tile, and over them every complete subtree below the next stored level."""
        found = self._pyramids.get((height, tile))
        if found is not None:
            return found
        start, end = tile * WIDTH, min((tile + 1) * WIDTH, self.size >> height)
        level = list(self._nodes(height, start, end))
        if len(level) != max(0, end - start) or any(len(node) != SIZE for node in level):
            raise LogCorrupt("the stored tree of the log has gaps")
        levels = [level]
        while len(levels) < STRIDE:
            pairs = zip(level[::2], level[1::2], strict=False)  # an odd last one has no sibling yet
            levels.append(level := [node_hash(left, right) for left, right in pairs])
        if len(self._pyramids) >= _KEPT:
            self._pyramids.pop(next(iter(self._pyramids)))
        self._pyramids[height, tile] = levels
        return levels


def stored(position: int, completed: Sequence[bytes]) -> list[tuple[int, int, bytes]]:
    """(height, position, node) of those subtrees that leaf ``position`` completed and that are to be stored;
    ``completed`` is what :meth:`registry.log.merkle.Frontier.append` gave."""
    return [(height, position >> height, completed[height]) for height in range(0, len(completed), STRIDE)]
