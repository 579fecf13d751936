"""Proofs as documents, whole enough to be kept and checked later without asking anybody."""

from typing import Literal

from pydantic import Field

from registry.canonical import Document
from registry.digests import Digest
from registry.log.proofs import verify_consistency, verify_inclusion


class Inclusion(Document):
    """Entry ``index`` is in the log of ``size`` entries whose root is ``root``."""

    kind: Literal["tenon.log-inclusion/v1"] = "tenon.log-inclusion/v1"
    index: int = Field(ge=0)
    size: int = Field(ge=1)
    leaf: Digest
    """SHA-256 of a zero byte and the entry's canonical bytes."""
    root: Digest
    proof: tuple[Digest, ...]

    def holds(self) -> bool:
        return verify_inclusion(
            leaf=raw(self.leaf),
            index=self.index,
            size=self.size,
            proof=[raw(node) for node in self.proof],
            root=raw(self.root),
        )


class Consistency(Document):
    """The log of ``second`` entries begins with the one of ``first``: nothing of it was changed."""

    kind: Literal["tenon.log-consistency/v1"] = "tenon.log-consistency/v1"
    first: int = Field(ge=0)
    second: int = Field(ge=0)
    first_root: Digest
    second_root: Digest
    proof: tuple[Digest, ...]

    def holds(self) -> bool:
        return verify_consistency(
            first=self.first,
            second=self.second,
            first_root=raw(self.first_root),
            second_root=raw(self.second_root),
            proof=[raw(node) for node in self.proof],
        )


def raw(digest: Digest) -> bytes:
    return bytes.fromhex(digest.hex)


def digest(node: bytes) -> Digest:
    return Digest(f"sha256:{node.hex()}")
