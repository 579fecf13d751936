"""Proofs about the log: this entry is in it (inclusion), and it only ever grew (consistency).

Made from stored subtrees (:mod:`registry.log.tiles`), checked by pure functions that need nothing else:
RFC 9162, sections 2.1.3 and 2.1.4.
"""

from collections.abc import Sequence

from registry.log.merkle import EMPTY_ROOT, SIZE, node_hash
from registry.log.tiles import Tiles


def inclusion_proof(tiles: Tiles, index: int, size: int) -> tuple[bytes, ...]:
    """The sibling hashes from leaf ``index`` up to the root of the tree at ``size``.

    Raises ValueError outside the tree.
    """
    if not 0 <= index < size <= tiles.size:
        raise ValueError(f"no leaf {index} in a tree of {size}, or no such tree")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:  # from the root down, so the proof comes out in reverse
        middle = start + _left_size(end - start)
        if index < middle:
            proof.append(tiles.range_root(middle, end))
            end = middle
        else:
            proof.append(tiles.range_root(start, middle))
            start = middle
    return tuple(reversed(proof))


def consistency_proof(tiles: Tiles, first: int, second: int) -> tuple[bytes, ...]:
    """Proof that the tree at ``second`` still begins with the one at ``first``.

    Empty when ``first`` is 0 or ``second``. Raises ValueError outside the tree.
    """
    if not 0 <= first <= second <= tiles.size:
        raise ValueError(f"a tree of {second} never had size {first}, or there is no such tree")
    if first in (0, second):
        return ()
    proof: list[bytes] = []
    start, end = 0, second
    while end != first:
        middle = start + _left_size(end - start)
        if first <= middle:
            proof.append(tiles.range_root(middle, end))
            end = middle
        else:
            proof.append(tiles.range_root(start, middle))
            start = middle
    if start:  # otherwise this subtree is the whole first tree, whose root the verifier has
        proof.append(tiles.range_root(start, end))
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
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and node == root


def verify_consistency(
    *, first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> bool:
    """RFC 9162, 2.1.4.2; stricter for an empty first tree, whose root must be the empty root."""
    if not 0 <= first <= second or (first < second and not _hashes(first_root, second_root, *proof)):
        return False
    if first in (0, second):  # nothing to prove: every tree begins with the empty one, and with itself
        empty = first > 0 or first_root == EMPTY_ROOT
        return not proof and empty and (first < second or first_root == second_root)
    if not proof:
        return False
    rest = list(proof)
    if first & (first - 1) == 0:  # a power of two: the first root itself starts the path
        rest.insert(0, first_root)
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    first_node = second_node = rest[0]
    for sibling in rest[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            first_node, second_node = node_hash(sibling, first_node), node_hash(sibling, second_node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            second_node = node_hash(second_node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and first_node == first_root and second_node == second_root


def _left_size(size: int) -> int:
    """The largest power of two below ``size`` (size > 1): where RFC 6962 splits a tree."""
    return 1 << (size - 1).bit_length() - 1


def _hashes(*values: bytes) -> bool:
    return all(len(value) == SIZE for value in values)
