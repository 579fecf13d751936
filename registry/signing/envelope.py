"""Signed bytes: DSSE envelopes (secure-systems-lab/dsse, protocol.md 1.0), Ed25519 only.

The signature covers the payload's *bytes* and its type, never a re-serialised model: whoever verifies must
use exactly the bytes that :func:`verify` returns.
"""

import base64
import binascii
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field

from registry.canonical import Document
from registry.digests import Digest
from registry.errors import SignatureInvalid
from registry.models import PublicKey


class Signature(Document):
    keyid: str = ""
    """A hint for choosing the key to try; DSSE forbids trusting it."""
    sig: str
    """Base64 of the 64 signature bytes."""


class Envelope(Document):
    payloadType: str  # noqa: N815 (the spelling of the DSSE JSON envelope)
    payload: str
    """Base64 of the signed bytes."""
    signatures: tuple[Signature, ...] = Field(min_length=1, max_length=8)
    """A rotation makes two. Each may have to be tried with every trusted key, while others wait: so not any
    number of them."""

    def body(self) -> bytes:
        """The payload's bytes, **not verified**. Raises SignatureInvalid for broken base64."""
        return _decode(self.payload, "payload")


def preauthentication(payload_type: str, payload: bytes) -> bytes:
    """What is really signed (DSSE's PAE): the lengths make every (type, payload) pair one spelling."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_id(raw: bytes) -> str:
    """The id of a raw Ed25519 public key: the first 16 hex digits of its SHA-256."""
    return Digest.of(raw).hex[:16]


def verify(envelope: Envelope, *, payload_type: str, trusted: Mapping[str, PublicKey], role: str) -> bytes:
    """The signed bytes, if a trusted key **with that role** signed them as ``payload_type``.

    Raises SignatureInvalid otherwise; an empty ``trusted`` refuses everything.
    """
    if envelope.payloadType != payload_type:
        raise SignatureInvalid(f"signed as {envelope.payloadType[:80]!r}, expected {payload_type!r}")
    if not trusted:
        raise SignatureInvalid("no trusted keys were given, so no signature can be accepted")
    keys = [key for key in trusted.values() if key.role == role]
    if not keys:
        raise SignatureInvalid(f"no trusted key has the role {role!r}")
    payload = envelope.body()
    signed = preauthentication(payload_type, payload)
    for signature in envelope.signatures:
        sig = _decode(signature.sig, "signature")
        for key in keys:
            if signature.keyid in ("", key.id) and _holds(key, sig, signed):
                return payload
    named = ", ".join(sorted({signature.keyid[:16] or "unnamed" for signature in envelope.signatures}))
    raise SignatureInvalid(f"no valid signature by a trusted {role} key (signed by: {named})")


def _holds(key: PublicKey, sig: bytes, signed: bytes) -> bool:
    raw = bytes.fromhex(key.ed25519)
    if key_id(raw) != key.id:
        raise SignatureInvalid(f"the trusted key {key.id} is not the key that its id names")
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(sig, signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def _decode(text: str, what: str) -> bytes:
    """DSSE accepts either base64 alphabet; we accept one spelling in each (no stray bits, no line ends)."""
    for alphabet in (b"+/", b"-_"):
        try:
            data = base64.b64decode(text, altchars=alphabet, validate=True)
        except (binascii.Error, ValueError):
            continue
        if base64.b64encode(data, altchars=alphabet).decode() == text:
            return data
    raise SignatureInvalid(f"the {what} is not valid base64")
