"""The Merkle tree of the log: RFC 6962 hashing, and a tree that grows.

Leaves and nodes are hashed with different first bytes, so a node can never be passed off as a leaf. Every
function takes *leaf hashes* (32 bytes, from :func:`leaf_hash`), not the data. Proofs are made and checked in
:mod:`registry.log.proofs`.
"""

import hashlib
from collections.abc import Sequence

SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A growing tree in O(log n) state: the roots of its complete subtrees, largest (oldest) first."""

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """Continue a tree of ``size`` leaves. Raises ValueError when ``peaks`` cannot belong to that size."""
        if size < 0 or len(peaks) != size.bit_count() or any(len(peak) != SIZE for peak in peaks):
            raise ValueError(f"{len(peaks)} peaks cannot be the frontier of {size} leaves")
        self._size = size
        self._peaks = list(peaks)

    @property
    def size(self) -> int:
        return self._size

    @property
    def peaks(self) -> tuple[bytes, ...]:
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> tuple[bytes, ...]:
        """The complete subtrees that end with ``leaf``, by height: itself, then what it made whole."""
        completed = [checked(leaf)]
        carry = self._size
        while carry & 1:  # as in binary addition: equal subtrees join
            completed.append(node_hash(self._peaks.pop(), completed[-1]))
            carry >>= 1
        self._peaks.append(completed[-1])
        self._size += 1
        return tuple(completed)

    def root(self) -> bytes:
        return folded(self._peaks)


def folded(peaks: Sequence[bytes]) -> bytes:
    """The root over complete subtrees of falling size, largest first; of none, the hash of nothing."""
    if not peaks:
        return EMPTY_ROOT
    node = peaks[-1]
    for peak in reversed(peaks[:-1]):
        node = node_hash(peak, node)
    return node


def root(leaves: Sequence[bytes]) -> bytes:
    """Of all ``leaves``; the empty tree's root is the hash of nothing."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def checked(leaf: bytes) -> bytes:
    if len(leaf) != SIZE:
        raise ValueError(f"a leaf hash has {SIZE} bytes, not {len(leaf)}")
    return leaf
