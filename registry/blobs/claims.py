"""Which tenant has shown which bytes: whoever sent a blob may read it, and nobody else learns of it.

Blobs are shared between tenants (the same bytes are kept once), so that a blob *is there* must not answer
whether *you* may know of it: else digests could be tried out, and another tenant's weights be fetched.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from registry.digests import Digest
from registry.names import parse_name
from registry.ports import Shelf


@dataclass(frozen=True, slots=True)
class Claim:
    tenant: str
    digest: Digest
    at: datetime


class Claims:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def add(self, tenant: str, digest: Digest) -> None:
        """``tenant`` has sent all bytes of ``digest``."""
        self._shelf.add(_name(tenant, digest), b"")

    def has(self, tenant: str, digest: Digest) -> bool:
        return self._shelf.has(_name(tenant, digest))

    def all(self) -> Iterator[Claim]:
        for piece in self._shelf.list("claims"):
            _, tenant, hexed = piece.name.split("/")
            yield Claim(tenant, Digest(f"sha256:{hexed}"), piece.at)

    def remove(self, claim: Claim) -> None:
        self._shelf.remove(_name(claim.tenant, claim.digest))


def _name(tenant: str, digest: Digest) -> str:
    return f"claims/{parse_name(tenant, 'tenant')}/{digest.hex}"
