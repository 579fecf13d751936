"""What the registry needs from storage."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Protocol

from registry.digests import Digest


@dataclass(frozen=True, slots=True)
class Stored:
    digest: Digest
    size: int
    renewed_at: datetime
    """When these bytes were last put, or last asked to stay."""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What crashes and lost connections left behind."""

    count: int
    size: int


@dataclass(frozen=True, slots=True)
class Piece:
    name: str
    size: int
    at: datetime


class Blobs(Protocol):
    """Bytes by digest. Implementations: :mod:`registry.blobs` ``.filesystem``, ``.s3``, ``.memory``."""

    def put(self, stream: BinaryIO, *, expect: Digest | None = None) -> tuple[Digest, int]:
        """Store the rest of ``stream``; returns (digest, size in bytes). Storing twice is harmless, renews
        the blob's age and heals damage.

        All or nothing: raises BlobCorrupt when the bytes are not ``expect``, and then keeps nothing.
        """
        ...

    def open(self, digest: Digest) -> BinaryIO:
        """A stream that checks itself: reading past the last byte raises BlobCorrupt if the digest differs.

        Raises BlobNotFound.
        """
        ...

    def read(self, digest: Digest) -> bytes:
        """All bytes, checked before they are returned. Raises BlobNotFound, BlobCorrupt."""
        ...

    def has(self, digest: Digest) -> bool: ...

    def renew(self, digest: Digest) -> bool:
        """Make a blob as young as if it were put now; False if it is not there (then put it).

        Whoever is about to *name* a blob calls this first: the age is all that keeps a blob that nothing
        names from being collected.
        """
        ...

    def digests(self) -> Iterator[Digest]:
        """Everything stored, in digest order."""
        ...


class BlobStore(Blobs, Protocol):
    """Blobs as whoever runs the store sees them: with sizes and ages, and with a way to remove them."""

    def stat(self, digest: Digest) -> Stored:
        """Raises BlobNotFound."""
        ...

    def stored(self) -> Iterator[Stored]:
        """Everything stored, in digest order."""
        ...

    def open_unchecked(self, digest: Digest, *, start: int, size: int) -> BinaryIO:
        """``size`` bytes from ``start`` on, or fewer at the end: **not verified**, for a part has no digest.

        Raises BlobNotFound.
        """
        ...

    def delete_for_ever(self, digest: Digest, *, unless_renewed_since: datetime) -> bool:
        """Remove a blob, unless it is younger: judged in the same moment, so that a put or a renewal that has
        returned is never undone. False if nothing was removed."""
        ...

    def leftovers(self, *, before: datetime, delete: bool) -> Leftovers:
        """Halves of blobs that nobody has touched since ``before``; never a blob."""
        ...


class Shelf(Protocol):
    """Small pieces of bytes by name: what uploads under way and claims are kept as.

    Names are paths of ``[a-z0-9_-]`` words that this package makes, never a client.
    """

    def add(self, name: str, data: bytes) -> bool:
        """Durable when it returns; False, and nothing changed, when the name is taken."""
        ...

    def get(self, name: str) -> bytes:
        """Raises KeyError."""
        ...

    def has(self, name: str) -> bool: ...

    def list(self, folder: str) -> Iterator[Piece]:
        """Everything below ``folder``, by name; all there is for ``""``."""
        ...

    def remove(self, name: str) -> None:
        """Harmless when it is not there."""
        ...

    def leftovers(self, *, before: datetime, delete: bool) -> Leftovers:
        """Halves of pieces whose writer died before ``before``."""
        ...
