"""How a head commits to *all* entries of a tenant, so that none can be left out of what the tenant is shown.

Inclusion proofs say that entries are in the log, never that they are all of them. So every tenant has a tip:
the number of its entries, and a hash chain over their leaf hashes in order. The tips are the leaves of a
second Merkle tree, in the order of each tenant's first entry, and a v2 head signs its root. Whoever replays
the whole log (``tenon log verify``, an auditor) checks every tip of every head; a tenant checks its own,
without seeing another's. docs/decisions/0005-tips.md
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final, Literal, Self

from pydantic import Field

from registry.canonical import Document
from registry.digests import Digest
from registry.log.entries import TipsRoot
from registry.log.merkle import EMPTY_ROOT, folded, leaf_hash, node_hash

START: Final = Digest(f"sha256:{EMPTY_ROOT.hex()}")
"""The chain of no entries."""


class Tip(Document):
    """All entries of a tenant so far. Its canonical bytes are the data of a leaf of the tree of tips."""

    kind: Literal["tenon.log-tip/v1"] = "tenon.log-tip/v1"
    tenant: str
    entries: int = Field(default=0, ge=0)
    chain: Digest = START

    def after(self, leaf: bytes) -> Self:
        """With one more entry. 0x02 keeps links apart from leaves (0x00) and nodes (0x01)."""
        link = hashlib.sha256(b"\x02" + bytes.fromhex(self.chain.hex) + leaf).hexdigest()
        return self.model_copy(update={"entries": self.entries + 1, "chain": Digest(f"sha256:{link}")})

    def leaf(self) -> bytes:
        return leaf_hash(self.canonical())


class TipTree:
    """The tree of tips in memory: a changed leaf costs O(log n), and every head wants a new root."""

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]

    def put(self, position: int, leaf: bytes) -> None:
        """Replace a leaf, or append one when ``position`` is the number of leaves."""
        level, node = self._levels[0], leaf
        if position == len(level):
            level.append(node)
        level[position] = node
        for height in range(1, len(level).bit_length()):
            if (position | 1) >= len(level):  # the sibling, and so the parent, does not exist yet
                return
            left = position & ~1
            node = node_hash(level[left], level[left + 1])
            position >>= 1
            if height == len(self._levels):
                self._levels.append([])
            level = self._levels[height]
            if position == len(level):
                level.append(node)
            level[position] = node

    def nodes(self) -> Iterator[tuple[int, int, bytes]]:
        for height, level in enumerate(self._levels):
            for position, node in enumerate(level):
                yield height, position, node

    def root(self) -> TipsRoot:
        size = len(self._levels[0])
        peaks, start = [], 0
        for height in reversed(range(size.bit_length())):
            if size >> height & 1:
                peaks.append(self._levels[height][start >> height])
                start += 1 << height
        return tips_root(size, peaks)


class Tips:
    """Every tenant's tip, for whoever reads the whole log."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}
        self._tips: list[Tip] = []
        self._tree = TipTree()
        self._changed: set[int] = set()

    def read(self, tenant: str, leaf: bytes) -> None:
        position = self._positions.setdefault(tenant, len(self._tips))
        if position == len(self._tips):
            self._tips.append(Tip(tenant=tenant))
        self._tips[position] = self._tips[position].after(leaf)
        self._changed.add(position)

    def root(self) -> TipsRoot:
        for position in sorted(self._changed):  # new ones come last, and in order
            self._tree.put(position, self._tips[position].leaf())
        self._changed.clear()
        return self._tree.root()

    def all(self) -> Sequence[Tip]:
        """By position."""
        return self._tips

    def nodes(self) -> Iterator[tuple[int, int, bytes]]:
        """(height, position, node) of all complete subtrees, by height and position."""
        self.root()
        return self._tree.nodes()


def tips_root(size: int, peaks: Sequence[bytes]) -> TipsRoot:
    return TipsRoot(size=size, root=Digest(f"sha256:{folded(peaks).hex()}"))
