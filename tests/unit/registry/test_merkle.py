"""Known answers: the vectors that certificate-transparency implementations share for RFC 6962 hashing."""

import hashlib
import json
from pathlib import Path

import pytest

from registry.log import merkle, proofs
from tests.support.trees import tiles_of

VECTORS = Path(__file__).parents[2] / "support" / "vectors" / "merkle.jsonl"
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
    assert proofs.inclusion_proof(tiles_of(LEAVES), index, size) == proof
    assert proofs.verify_inclusion(
        leaf=LEAVES[index], index=index, size=size, proof=proof, root=ROOTS[size - 1]
    )


@pytest.mark.parametrize(("old", "new", "proof"), CONSISTENCY)
def test_consistency(old: int, new: int, proof: tuple[bytes, ...]) -> None:
    assert proofs.consistency_proof(tiles_of(LEAVES), old, new) == proof
    assert proofs.verify_consistency(
        first=old, second=new, first_root=ROOTS[old - 1], second_root=ROOTS[new - 1], proof=proof
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
        assert not proofs.verify_inclusion(
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
        assert proofs.verify_consistency(
            first=old, second=new, first_root=old_root, second_root=new_root, proof=proof
        ) is holds  # fmt: skip


@pytest.mark.parametrize(("index", "size"), [(-1, 8), (8, 8), (3, 3), (0, 9), (0, 0)])
def test_there_are_no_inclusion_proofs_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        proofs.inclusion_proof(tiles_of(LEAVES), index, size)


@pytest.mark.parametrize(("old", "new"), [(-1, 8), (9, 8), (0, 9)])
def test_there_are_no_consistency_proofs_outside_the_tree(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="never had size"):
        proofs.consistency_proof(tiles_of(LEAVES), old, new)


def test_published_proofs_good_and_spoilt() -> None:
    """Those of transparency-dev/merkle, see tests/support/vectors/README.md."""
    cases = [json.loads(line) for line in VECTORS.read_text().splitlines()]
    assert {case["holds"] for case in cases} == {True, False}
    for case in cases:
        proof = [bytes.fromhex(node) for node in case["proof"]]
        if "leaf" in case:
            holds = proofs.verify_inclusion(
                leaf=bytes.fromhex(case["leaf"]),
                index=case["index"],
                size=case["size"],
                proof=proof,
                root=bytes.fromhex(case["root"]),
            )
        else:
            holds = proofs.verify_consistency(
                first=case["first"],
                second=case["second"],
                first_root=bytes.fromhex(case["first_root"]),
                second_root=bytes.fromhex(case["second_root"]),
                proof=proof,
            )
        assert holds is case["holds"], case["name"]


@pytest.mark.parametrize(("size", "peaks"), [(1, ()), (2, (A, B)), (-1, ()), (1, (b"short",))])
def test_a_frontier_that_cannot_be_is_refused(size: int, peaks: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be the frontier"):
        merkle.Frontier(size, peaks)
