"""Which key signs the heads of which sizes: from the first one on, each introduces the next.

A rotation is an entry. The head that covers it as its last entry is signed by both keys, later ones by the
new key alone. So whoever trusts any key of the chain can follow it both ways: an older key introduced the
newer one, and the newer one vouches for the whole log that the older one had signed. A stolen old key signs
nothing that counts after its end.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from registry.errors import InvalidDocument, SignatureInvalid
from registry.log.entries import Entry, Head
from registry.models import PublicKey
from registry.signing.envelope import Envelope, key_id, verify
from registry.signing.types import LOG_HEAD

LOG_KEY_ROTATED: Final = "log.key_rotated"
_FORK: Final = (
    "trust the log keys of this registry only; is one of them stolen, this may be a fork by the thief"
)


@dataclass(frozen=True, slots=True)
class Rotation:
    index: int
    """Of the entry."""
    previous: PublicKey
    signer: PublicKey
    """In force from size ``index + 2`` on."""

    def body(self) -> dict[str, Any]:
        return {name: getattr(self, name).model_dump(mode="json") for name in ("previous", "signer")}

    @classmethod
    def of(cls, entry: Entry) -> "Rotation":
        """Raises InvalidDocument."""
        try:
            previous, signer = (PublicKey.build(entry.body[name]) for name in ("previous", "signer"))
        except KeyError as error:
            raise InvalidDocument(f"a rotation of the log key without {error}") from None
        for key in (previous, signer):
            if key.role != "log" or key_id(bytes.fromhex(key.ed25519)) != key.id:
                raise InvalidDocument(f"{key.id} is no log key")
        return cls(entry.index, previous, signer)


class KeyChain:
    """All log keys of a log. Without rotations: the trusted one."""

    def __init__(self, rotations: Iterable[Rotation], trusted: Mapping[str, PublicKey]) -> None:
        """``trusted``: known from elsewhere. Raises SignatureInvalid when the chain does not hold together,
        or holds no trusted key, or not all of them: a log that says nothing of a key that is trusted may be a
        fork from before it, signed with an older one that was stolen."""
        self._rotations: Sequence[Rotation] = sorted(rotations, key=lambda rotation: rotation.index)
        self._trusted = {key.id: key for key in trusted.values() if key.role == "log"}
        for one, next_ in zip(self._rotations, self._rotations[1:], strict=False):
            if one.signer != next_.previous:
                raise SignatureInvalid(
                    f"entry {next_.index} rotates the log key {next_.previous.id}, which was not in force"
                )
        if self._rotations and not any(self._trusted.get(key.id) == key for key in self.keys):
            raise SignatureInvalid("no log key that this log names is a trusted one")
        named = {key.id for key in self.keys}
        if strange := sorted(set(self._trusted) - named):
            raise SignatureInvalid(f"the log does not name the trusted log key {strange[0]}", hint=_FORK)
        if not self._rotations and len(self._trusted) > 1:
            raise SignatureInvalid("the log names no rotation between the trusted log keys", hint=_FORK)

    @property
    def rotations(self) -> Sequence[Rotation]:
        return self._rotations

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """Oldest first."""
        if not self._rotations:
            return tuple(self._trusted.values())
        return (self._rotations[0].previous, *(rotation.signer for rotation in self._rotations))

    def signers(self, size: int) -> tuple[PublicKey, ...]:
        """All of which must have signed a head of this size; where there are no rotations, any of them."""
        for rotation in self._rotations:
            if size <= rotation.index:
                return (rotation.previous,)
            if size == rotation.index + 1:
                return (rotation.previous, rotation.signer)
        return (self._rotations[-1].signer,) if self._rotations else self.keys

    def open(self, envelope: Envelope) -> Head:
        """Raises SignatureInvalid, InvalidDocument."""
        head = Head.parse(envelope.body())  # only to know its size; its signatures are checked now
        keys = self.signers(head.size)
        if not self._rotations:
            verify(envelope, payload_type=LOG_HEAD, trusted={key.id: key for key in keys}, role="log")
            return head
        for key in keys:
            verify(envelope, payload_type=LOG_HEAD, trusted={key.id: key}, role="log")
        return head
