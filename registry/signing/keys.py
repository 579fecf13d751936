"""Private signing keys: made, kept in a file that only their owner can read, used to sign."""

import base64
import os
import secrets
import stat
from pathlib import Path
from typing import Literal, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from registry.canonical import Document
from registry.errors import AlreadyExists, InvalidDocument, SigningKeyExposed, SigningKeyNotFound
from registry.models import PublicKey
from registry.signing.envelope import Envelope, Signature, key_id, preauthentication

SignerRole: TypeAlias = Literal["log", "trainer", "release", "engine", "router"]


class _KeyFile(Document):
    kind: Literal["tenon.signing-key/v1"] = "tenon.signing-key/v1"
    role: SignerRole
    seed: str = Field(pattern=r"^[0-9a-f]{64}$")
    """RFC 8032 private key, hex."""


class Signer:
    """An Ed25519 private key and the one role it may sign for; never printed, never pickled."""

    def __init__(self, role: SignerRole, seed: bytes) -> None:
        """``seed``: the 32 private bytes of RFC 8032."""
        self._seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        raw = self._private.public_key().public_bytes_raw()
        self.public = PublicKey(id=key_id(raw), role=role, ed25519=raw.hex())

    @classmethod
    def generate(cls, role: SignerRole) -> "Signer":
        return cls(role, secrets.token_bytes(32))

    @classmethod
    def load(cls, path: Path) -> "Signer":
        """Raises SigningKeyNotFound, SigningKeyExposed (readable by everyone) or InvalidDocument."""
        try:
            with path.open("rb") as stream:
                mode = os.fstat(stream.fileno()).st_mode
                data = stream.read(4096)
        except FileNotFoundError:
            raise SigningKeyNotFound(f"there is no signing key file {path.name!r}") from None
        if stat.S_IMODE(mode) & 0o007:  # a group is fine: that is how Kubernetes mounts secrets (fsGroup)
            raise SigningKeyExposed(f"the signing key file {path.name!r} is open to every user")
        try:
            key = _KeyFile.parse(data)
        except InvalidDocument:  # its text may quote the file, and the file is a secret
            raise InvalidDocument(f"{path.name!r} is not a signing key file") from None
        return cls(key.role, bytes.fromhex(key.seed))

    def save(self, path: Path) -> None:
        """Write the key, readable by its owner only; the file appears whole or not at all.

        Raises AlreadyExists rather than overwrite: a lost signing key cannot be made again.
        """
        data = _KeyFile(role=self.role, seed=self._seed.hex()).canonical()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            try:
                os.link(temporary, path)  # unlike rename, link fails if somebody was faster
            except FileExistsError:
                raise AlreadyExists(f"a file named {path.name!r} is already there") from None
        finally:
            temporary.unlink()
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @property
    def role(self) -> SignerRole:
        return self.public.role

    def sign(self, payload_type: str, payload: bytes) -> Envelope:
        sig = self._private.sign(preauthentication(payload_type, payload))
        return Envelope(
            payloadType=payload_type,
            payload=base64.b64encode(payload).decode(),
            signatures=(Signature(keyid=self.public.id, sig=base64.b64encode(sig).decode()),),
        )

    def __repr__(self) -> str:
        return f"Signer({self.role} {self.public.id})"

    def __reduce__(self) -> str:
        raise TypeError("a signing key must not be pickled")
