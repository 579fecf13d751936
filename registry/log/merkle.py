"""The Merkle tree of the log: RFC 6962 hashing, RFC 9162 proofs.

Leaves and nodes are hashed with different first bytes, so a node can never be passed off as a leaf. Every
function takes *leaf hashes* (32 bytes, from :func:`leaf_hash`), not the data.
"""

import hashlib
from collections.abc import Sequence

_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A growing tree in O(log n) state: the roots of its complete subtrees, largest (oldest) first."""

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """Continue a tree of ``size`` leaves. Raises ValueError when ``peaks`` cannot belong to that size."""
        if size < 0 or len(peaks) != size.bit_count() or any(len(peak) != _SIZE for peak in peaks):
            raise ValueError(f"{len(peaks)} peaks cannot be the frontier of {size} leaves")
        self._size = size
        self._peaks = list(peaks)

    @property
    def size(self) -> int:
        return self._size

    @property
    def peaks(self) -> tuple[bytes, ...]:
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> None:
        node = _checked(leaf)
        carry = self._size
        while carry & 1:  # as in binary addition: equal subtrees join
            node = _node(self._peaks.pop(), node)
            carry >>= 1
        self._peaks.append(node)
        self._size += 1

    def root(self) -> bytes:
        if not self._peaks:
            return EMPTY_ROOT
        node = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            node = _node(peak, node)
        return node


def root(leaves: Sequence[bytes]) -> bytes:
    """Of all ``leaves``; the empty tree's root is the hash of nothing."""
    return _range_root(leaves, 0, len(leaves))


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The sibling hashes from leaf ``index`` up to the root. Raises ValueError outside the tree."""
    if not 0 <= index < len(leaves):
        raise ValueError(f"no leaf {index} in a tree of {len(leaves)}")
    proof: list[bytes] = []
    start, end = 0, len(leaves)
    while end - start > 1:  # from the root down, so the proof comes out in reverse
        middle = start + _left_size(end - start)
        if index < middle:
            proof.append(_range_root(leaves, middle, end))
            end = middle
        else:
            proof.append(_range_root(leaves, start, middle))
            start = middle
    return tuple(reversed(proof))


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> tuple[bytes, ...]:
    """Proof that the first ``old_size`` leaves are still the tree that was signed then.

    Empty for sizes 0 and ``len(leaves)``. Raises ValueError outside the tree.
    """
    if not 0 <= old_size <= len(leaves):
        raise ValueError(f"a tree of {len(leaves)} never had size {old_size}")
    if old_size in (0, len(leaves)):
        return ()
    proof: list[bytes] = []
    start, end = 0, len(leaves)
    while end != old_size:
        middle = start + _left_size(end - start)
        if old_size <= middle:
            proof.append(_range_root(leaves, middle, end))
            end = middle
        else:
            proof.append(_range_root(leaves, start, middle))
            start = middle
    if start:  # otherwise this subtree is the whole old tree, whose root the verifier has
        proof.append(_range_root(leaves, start, end))
    return tuple(reversed(proof))


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """RFC 9162, 2.1.3.2."""
    if not 0 <= index < size or not _hashes(leaf, root, *proof):
        return False
    position, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            node = _node(sibling, node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = _node(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and node == root


def verify_consistency(
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """RFC 9162, 2.1.4.2; stricter for an empty old tree, whose root must be the empty root."""
    if not 0 <= old_size <= new_size or not _hashes(old_root, new_root, *proof):
        return False
    if old_size == new_size:
        return not proof and old_root == new_root
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    if not proof:
        return False
    rest = list(proof)
    if old_size & (old_size - 1) == 0:  # a power of two: the old root itself starts the path
        rest.insert(0, old_root)
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_node = new_node = rest[0]
    for sibling in rest[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old_node, new_node = _node(sibling, old_node), _node(sibling, new_node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new_node = _node(new_node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and old_node == old_root and new_node == new_root


def _range_root(leaves: Sequence[bytes], start: int, end: int) -> bytes:
    frontier = Frontier()
    for index in range(start, end):
        frontier.append(leaves[index])
    return frontier.root()


def _left_size(size: int) -> int:
    """The largest power of two below ``size`` (size > 1): where RFC 6962 splits a tree."""
    return 1 << (size - 1).bit_length() - 1


def _checked(leaf: bytes) -> bytes:
    if len(leaf) != _SIZE:
        raise ValueError(f"a leaf hash has {_SIZE} bytes, not {len(leaf)}")
    return leaf


def _hashes(*values: bytes) -> bool:
    return all(len(value) == _SIZE for value in values)
