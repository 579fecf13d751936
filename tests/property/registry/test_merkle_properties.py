"""Against the recursive definitions of RFC 9162 (2.1.1, 2.1.3.1, 2.1.4.1), as they stand there."""

import hashlib
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from registry.log import merkle

trees = st.lists(st.binary(max_size=8), max_size=40).map(
    lambda data: [merkle.leaf_hash(item) for item in data]
)
proofs = st.lists(st.binary(max_size=33) | st.binary(min_size=32, max_size=32), max_size=8)


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
    proof = merkle.inclusion_proof(leaves, index)
    assert list(proof) == path(index, leaves)
    root = tree_hash(leaves)
    assert merkle.verify_inclusion(leaf=leaves[index], index=index, size=len(leaves), proof=proof, root=root)


@given(trees, st.data())
def test_consistency(leaves: list[bytes], data: st.DataObject) -> None:
    old = data.draw(st.integers(0, len(leaves)))
    proof = merkle.consistency_proof(leaves, old)
    if old:
        assert list(proof) == subproof(old, leaves, known=True)
    assert merkle.verify_consistency(
        old_size=old,
        new_size=len(leaves),
        old_root=tree_hash(leaves[:old]),
        new_root=tree_hash(leaves),
        proof=proof,
    )


@given(trees.filter(bool), st.data())
def test_one_flipped_bit_breaks_an_inclusion_proof(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    parts = [leaves[index], tree_hash(leaves), *merkle.inclusion_proof(leaves, index)]
    which = data.draw(st.integers(0, len(parts) - 1))
    parts[which] = flipped(parts[which], data.draw(st.integers(0, 255)))
    leaf, root, *proof = parts
    assert not merkle.verify_inclusion(leaf=leaf, index=index, size=len(leaves), proof=proof, root=root)


@given(trees.filter(bool), st.data())
def test_one_flipped_bit_breaks_a_consistency_proof(leaves: list[bytes], data: st.DataObject) -> None:
    old = data.draw(st.integers(1, len(leaves)))
    parts = [tree_hash(leaves[:old]), tree_hash(leaves), *merkle.consistency_proof(leaves, old)]
    which = data.draw(st.integers(0, len(parts) - 1))
    parts[which] = flipped(parts[which], data.draw(st.integers(0, 255)))
    old_root, new_root, *proof = parts
    assert not merkle.verify_consistency(
        old_size=old, new_size=len(leaves), old_root=old_root, new_root=new_root, proof=proof
    )


@given(st.lists(st.binary(max_size=4), min_size=2, max_size=40, unique=True), st.data())
def test_a_changed_history_has_no_consistency_proof(items: list[bytes], data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(item) for item in items]
    old = data.draw(st.integers(1, len(leaves)))
    changed = list(leaves)
    changed[data.draw(st.integers(0, old - 1))] = merkle.leaf_hash(b"another")
    assert not merkle.verify_consistency(
        old_size=old,
        new_size=len(changed),
        old_root=tree_hash(leaves[:old]),
        new_root=tree_hash(changed),
        proof=merkle.consistency_proof(changed, old),
    )


@given(st.lists(st.binary(max_size=4), min_size=2, max_size=40, unique=True), st.data())
def test_a_proof_for_one_place_fits_no_other(items: list[bytes], data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(item) for item in items]
    index, other = data.draw(st.lists(st.integers(0, len(leaves) - 1), min_size=2, max_size=2, unique=True))
    proof = merkle.inclusion_proof(leaves, index)
    assert not merkle.verify_inclusion(
        leaf=leaves[index], index=other, size=len(leaves), proof=proof, root=tree_hash(leaves)
    )


@given(
    st.integers(-2, 70), st.integers(-2, 70), proofs,
    st.binary(min_size=32, max_size=32),
)  # fmt: skip
def test_verifying_made_up_proofs_never_raises(
    first: int, second: int, proof: list[bytes], root: bytes
) -> None:
    merkle.verify_inclusion(leaf=root, index=first, size=second, proof=proof, root=root)
    merkle.verify_consistency(old_size=first, new_size=second, old_root=root, new_root=root, proof=proof)
