"""Known answers: the vectors that certificate-transparency implementations share for RFC 6962 hashing."""

import hashlib

import pytest

from registry.log import merkle

DATA = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [bytes.fromhex(text) for text in (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)]  # fmt: skip
LEAVES = [merkle.leaf_hash(data) for data in DATA]
A, B, C, D, E, F, G, H, J = (bytes.fromhex(text) for text in (
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
))  # fmt: skip
INCLUSION = [(0, 8, (A, B, C)), (5, 8, (D, E, F)), (2, 3, (G,)), (1, 5, (ROOTS[0], B, D))]
CONSISTENCY = [(1, 1, ()), (1, 8, (A, B, C)), (6, 8, (H, E, F)), (2, 5, (B, D)), (6, 7, (H, J, F))]


@pytest.mark.parametrize("size", range(1, 9))
def test_roots(size: int) -> None:
    frontier = merkle.Frontier()
    for leaf in LEAVES[:size]:
        frontier.append(leaf)
    assert merkle.root(LEAVES[:size]) == frontier.root() == ROOTS[size - 1]


def test_the_empty_tree() -> None:
    assert merkle.root([]) == merkle.Frontier().root() == hashlib.sha256(b"").digest()


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_inclusion(index: int, size: int, proof: tuple[bytes, ...]) -> None:
    assert merkle.inclusion_proof(LEAVES[:size], index) == proof
    assert merkle.verify_inclusion(
        leaf=LEAVES[index], index=index, size=size, proof=proof, root=ROOTS[size - 1]
    )


@pytest.mark.parametrize(("old", "new", "proof"), CONSISTENCY)
def test_consistency(old: int, new: int, proof: tuple[bytes, ...]) -> None:
    assert merkle.consistency_proof(LEAVES[:new], old) == proof
    assert merkle.verify_consistency(
        old_size=old, new_size=new, old_root=ROOTS[old - 1], new_root=ROOTS[new - 1], proof=proof
    )


def test_a_proof_only_fits_its_place() -> None:
    index, size, proof = INCLUSION[1]
    for wrong_index, wrong_size, wrong_proof in [
        (index - 1, size, proof),
        (index + 1, size, proof),
        (index ^ 2, size, proof),
        (index, size * 2, proof),
        (index, size // 2, proof),
        (-1, size, proof),
        (size, size, proof),
        (index, size, proof[:-1]),
        (index, size, (*proof, ROOTS[7])),
        (index, size, (*proof, b"")),
        (index, size, (b"", *proof)),
        (index, size, tuple(reversed(proof))),
    ]:
        assert not merkle.verify_inclusion(
            leaf=LEAVES[index], index=wrong_index, size=wrong_size, proof=wrong_proof, root=ROOTS[size - 1]
        )


def test_an_older_tree_cannot_be_made_up() -> None:
    empty = merkle.EMPTY_ROOT
    cases = [
        (0, 8, empty, ROOTS[7], (), True),
        (0, 0, empty, empty, (), True),
        (0, 8, ROOTS[0], ROOTS[7], (), False),
        (0, 8, empty, ROOTS[7], (A,), False),
        (8, 8, ROOTS[7], ROOTS[6], (), False),
        (8, 8, ROOTS[7], ROOTS[7], (A,), False),
        (8, 6, ROOTS[7], ROOTS[5], (), False),
        (-1, 8, empty, ROOTS[7], (), False),
        (1, 8, ROOTS[0], ROOTS[7], (), False),
        (6, 8, ROOTS[5], ROOTS[7], (H, E), False),
        (6, 8, ROOTS[5], ROOTS[7], (H, E, F, F), False),
        (6, 8, ROOTS[7], ROOTS[5], (H, E, F), False),
        (5, 8, ROOTS[5], ROOTS[7], (H, E, F), False),
        (6, 16, ROOTS[5], ROOTS[7], (H, E, F), False),
    ]
    for old, new, old_root, new_root, proof, holds in cases:
        assert merkle.verify_consistency(
            old_size=old, new_size=new, old_root=old_root, new_root=new_root, proof=proof
        ) is holds  # fmt: skip


def test_there_are_no_proofs_outside_the_tree() -> None:
    for index in (-1, 8):
        with pytest.raises(ValueError, match="no leaf"):
            merkle.inclusion_proof(LEAVES, index)
    for size in (-1, 9):
        with pytest.raises(ValueError, match="never had size"):
            merkle.consistency_proof(LEAVES, size)


@pytest.mark.parametrize(("size", "peaks"), [(1, ()), (2, (A, B)), (-1, ()), (1, (b"short",))])
def test_a_frontier_that_cannot_be_is_refused(size: int, peaks: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be the frontier"):
        merkle.Frontier(size, peaks)
