"""Against the recursive definitions of RFC 9162 (2.1.1, 2.1.3.1, 2.1.4.1), as they stand there."""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import LogCorrupt
from registry.log import merkle, proofs
from registry.log.tiles import Tiles
from tests.support.trees import tiles_of

trees = st.lists(st.binary(max_size=8), max_size=40).map(
    lambda data: [merkle.leaf_hash(item) for item in data]
)
made_up = st.lists(st.binary(max_size=33) | st.binary(min_size=32, max_size=32), max_size=8)


def split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return hashlib.sha256(b"\x01" + tree_hash(leaves[:k]) + tree_hash(leaves[k:])).digest()


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), tree_hash(leaves[k:])]
    return [*path(m - k, leaves[k:]), tree_hash(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], *, known: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if known else [tree_hash(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], known=known), tree_hash(leaves[k:])]
    return [*subproof(m - k, leaves[k:], known=False), tree_hash(leaves[:k])]


def flipped(data: bytes, bit: int) -> bytes:
    bit %= len(data) * 8
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


@given(trees)
def test_roots(leaves: list[bytes]) -> None:
    frontier = merkle.Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    assert merkle.root(leaves) == frontier.root() == tree_hash(leaves)
    assert frontier.size == len(leaves)


def test_every_proof_of_every_size() -> None:
    """Exhaustive where trees are small; the tree that proofs are made from has grown on meanwhile."""
    leaves = [merkle.leaf_hash(b"%d" % index) for index in range(70)]
    tiles = tiles_of(leaves)
    for size in range(1, len(leaves) + 1):
        root = tree_hash(leaves[:size])
        assert tiles.root(size) == root
        for index in range(size):
            proof = proofs.inclusion_proof(tiles, index, size)
            assert list(proof) == path(index, leaves[:size])
            assert proofs.verify_inclusion(leaf=leaves[index], index=index, size=size, proof=proof, root=root)
            assert list(proofs.consistency_proof(tiles, index + 1, size)) == subproof(
                index + 1, leaves[:size], known=True
            )


BIG = [merkle.leaf_hash(b"%d" % index) for index in range(70_000)]
"""More than one tile of the second stored level (65,536 leaves)."""


@pytest.fixture(scope="module")
def big() -> Tiles:
    return tiles_of(BIG)


edges = st.sampled_from([1, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 65_792, 69_999, 70_000])


@given(st.integers(1, 70_000) | edges, st.data())
@settings(max_examples=15)
def test_proofs_over_several_stored_levels(big: Tiles, size: int, data: st.DataObject) -> None:
    """Roots by the frontier, which the recursive definition above vouches for."""
    root = merkle.root(BIG[:size])
    assert big.root(size) == root
    index = data.draw(st.integers(0, size - 1))
    proof = proofs.inclusion_proof(big, index, size)
    assert proofs.verify_inclusion(leaf=BIG[index], index=index, size=size, proof=proof, root=root)
    old = data.draw(st.integers(1, size) | edges.filter(lambda edge: edge <= size))
    assert proofs.verify_consistency(
        first=old,
        second=size,
        first_root=merkle.root(BIG[:old]),
        second_root=root,
        proof=proofs.consistency_proof(big, old, size),
    )


def test_stored_nodes_with_a_gap_give_no_proof() -> None:
    leaves = BIG[:600]
    whole = tiles_of(leaves)
    gap = Tiles(lambda height, start, end: leaves[start:end][1:] if height == 0 else [], size=600)
    assert whole.root(600) == merkle.root(leaves)
    with pytest.raises(LogCorrupt):
        gap.root(600)


@given(trees, st.data())
def test_a_frontier_goes_on_where_it_was_stored(leaves: list[bytes], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(leaves)))
    first = merkle.Frontier()
    for leaf in leaves[:cut]:
        first.append(leaf)
    second = merkle.Frontier(first.size, first.peaks)
    for leaf in leaves[cut:]:
        second.append(leaf)
    assert second.root() == tree_hash(leaves)
    assert first.root() == tree_hash(leaves[:cut])


@given(trees.filter(bool), st.data())
def test_inclusion(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    proof = proofs.inclusion_proof(tiles_of(leaves), index, len(leaves))
    assert list(proof) == path(index, leaves)
    root = tree_hash(leaves)
    assert proofs.verify_inclusion(leaf=leaves[index], index=index, size=len(leaves), proof=proof, root=root)


@given(trees, st.data())
def test_consistency(leaves: list[bytes], data: st.DataObject) -> None:
    old = data.draw(st.integers(0, len(leaves)))
    proof = proofs.consistency_proof(tiles_of(leaves), old, len(leaves))
    if old:
        assert list(proof) == subproof(old, leaves, known=True)
    assert proofs.verify_consistency(
        first=old,
        second=len(leaves),
        first_root=tree_hash(leaves[:old]),
        second_root=tree_hash(leaves),
        proof=proof,
    )


@given(trees.filter(bool), st.data())
def test_one_flipped_bit_breaks_an_inclusion_proof(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    parts = [leaves[index], tree_hash(leaves), *proofs.inclusion_proof(tiles_of(leaves), index, len(leaves))]
    which = data.draw(st.integers(0, len(parts) - 1))
    parts[which] = flipped(parts[which], data.draw(st.integers(0, 255)))
    leaf, root, *proof = parts
    assert not proofs.verify_inclusion(leaf=leaf, index=index, size=len(leaves), proof=proof, root=root)


@given(trees.filter(bool), st.data())
def test_one_flipped_bit_breaks_a_consistency_proof(leaves: list[bytes], data: st.DataObject) -> None:
    old = data.draw(st.integers(1, len(leaves)))
    parts = [
        tree_hash(leaves[:old]),
        tree_hash(leaves),
        *proofs.consistency_proof(tiles_of(leaves), old, len(leaves)),
    ]
    which = data.draw(st.integers(0, len(parts) - 1))
    parts[which] = flipped(parts[which], data.draw(st.integers(0, 255)))
    old_root, new_root, *proof = parts
    assert not proofs.verify_consistency(
        first=old, second=len(leaves), first_root=old_root, second_root=new_root, proof=proof
    )


@given(st.lists(st.binary(max_size=4), min_size=2, max_size=40, unique=True), st.data())
def test_a_changed_history_has_no_consistency_proof(items: list[bytes], data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(item) for item in items]
    old = data.draw(st.integers(1, len(leaves)))
    changed = list(leaves)
    changed[data.draw(st.integers(0, old - 1))] = merkle.leaf_hash(b"another")
    assert not proofs.verify_consistency(
        first=old,
        second=len(changed),
        first_root=tree_hash(leaves[:old]),
        second_root=tree_hash(changed),
        proof=proofs.consistency_proof(tiles_of(changed), old, len(changed)),
    )


@given(st.lists(st.binary(max_size=4), min_size=2, max_size=40, unique=True), st.data())
def test_a_proof_for_one_place_fits_no_other(items: list[bytes], data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(item) for item in items]
    index, other = data.draw(st.lists(st.integers(0, len(leaves) - 1), min_size=2, max_size=2, unique=True))
    proof = proofs.inclusion_proof(tiles_of(leaves), index, len(leaves))
    assert not proofs.verify_inclusion(
        leaf=leaves[index], index=other, size=len(leaves), proof=proof, root=tree_hash(leaves)
    )


@given(
    st.integers(-2, 70), st.integers(-2, 70), made_up,
    st.binary(min_size=32, max_size=32),
)  # fmt: skip
def test_verifying_made_up_proofs_never_raises(
    first: int, second: int, proof: list[bytes], root: bytes
) -> None:
    proofs.verify_inclusion(leaf=root, index=first, size=second, proof=proof, root=root)
    proofs.verify_consistency(first=first, second=second, first_root=root, second_root=root, proof=proof)
