"""How the log key changed, so that it can be checked: whoever trusts one key of the log learns the others."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import Field

from registry.canonical import Document
from registry.errors import SignatureInvalid
from registry.log.entries import Entry, Head
from registry.log.key_chain import LOG_KEY_ROTATED, KeyChain, Rotation
from registry.log.merkle import leaf_hash
from registry.log.proofs import verify_consistency, verify_inclusion
from registry.log.statements import raw
from registry.models import PublicKey
from registry.signing.envelope import Envelope

_HASH: Final = r"^[0-9a-f]{64}$"
Node = Annotated[str, Field(pattern=_HASH)]


class Handover(Document):
    """The head at which one log key handed over to the next, and that the log of later continues it."""

    head: Envelope
    consistency: tuple[Node, ...]


class Succession(Document):
    entry: str
    """The canonical bytes of the rotation, as text: what was hashed."""
    proof: tuple[Node, ...]
    handover: Handover


class KeyHistory(Document):
    """The newest head, and every change of the log key up to it."""

    kind: Literal["tenon.log-key-history/v1"] = "tenon.log-key-history/v1"
    head: Envelope
    keys: tuple[PublicKey, ...]
    """Every log key so far, oldest first: the log's own word, for who trusts none of them."""
    successions: tuple[Succession, ...]

    def open(self, trusted: Mapping[str, PublicKey]) -> tuple[KeyChain, Head]:
        """``trusted``: log keys got on another way; with none, ``keys`` are taken.

        Raises SignatureInvalid, InvalidDocument.
        """
        head = Head.parse(self.head.body())  # believed from the last line on
        rotations = [_rotation(each, head) for each in self.successions]
        known = trusted or {key.id: key for key in self.keys}
        return follow(rotations, [each.handover for each in self.successions], self.head, known), head


def follow(
    rotations: Sequence[Rotation],
    handovers: Sequence[Handover],
    newest: Envelope,
    trusted: Mapping[str, PublicKey],
) -> KeyChain:
    """The keys from the first one to the one that signed ``newest``.

    That ``rotations`` are in the log of ``newest`` is for the caller to have checked.
    Raises SignatureInvalid, InvalidDocument.
    """
    chain = KeyChain(rotations, trusted)
    if len(handovers) != len(chain.rotations):
        raise SignatureInvalid("every rotation of the log key needs the head of its handover")
    head = Head.parse(newest.body())
    for rotation, handover in zip(chain.rotations, handovers, strict=True):
        then = chain.open(handover.head)
        if then.size != rotation.index + 1 or not verify_consistency(
            first=then.size,
            second=head.size,
            first_root=raw(then.root),
            second_root=raw(head.root),
            proof=[bytes.fromhex(node) for node in handover.consistency],
        ):
            raise SignatureInvalid(f"the log does not continue the one that {rotation.previous.id} signed")
    chain.open(newest)
    return chain


def _rotation(succession: Succession, head: Head) -> Rotation:
    data = succession.entry.encode()
    entry = Entry.parse(data)
    proof = [bytes.fromhex(node) for node in succession.proof]
    there = verify_inclusion(
        leaf=leaf_hash(data), index=entry.index, size=head.size, proof=proof, root=raw(head.root)
    )
    if entry.kind != LOG_KEY_ROTATED or not there:
        raise SignatureInvalid(f"entry {entry.index} is no rotation in the log that the head signs")
    return Rotation.of(entry)
