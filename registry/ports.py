"""What the registry needs from storage."""

from collections.abc import Iterator
from typing import BinaryIO, Protocol

from registry.digests import Digest


class Blobs(Protocol):
    """Bytes by digest. Implementations: ``registry.blobs.filesystem``, ``registry.blobs.memory``."""

    def put(self, stream: BinaryIO, *, expect: Digest | None = None) -> tuple[Digest, int]:
        """Store the rest of ``stream``; returns (digest, size in bytes). Storing twice is harmless.

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

    def digests(self) -> Iterator[Digest]:
        """Everything stored, in digest order."""
        ...
