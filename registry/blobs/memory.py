"""Blobs in a dict, for tests. Gone with the process."""

import io
from collections.abc import Iterator
from typing import BinaryIO

from registry.blobs.checked import checked
from registry.digests import Digest
from registry.errors import BlobCorrupt, BlobNotFound


class InMemoryBlobs:
    def __init__(self) -> None:
        self._data: dict[Digest, bytes] = {}

    def put(self, stream: BinaryIO, *, expect: Digest | None = None) -> tuple[Digest, int]:
        data = stream.read()
        digest = Digest.of(data)
        if expect is not None and digest != expect:
            raise BlobCorrupt(f"the given bytes are {digest}, not {expect}", digest=expect)
        self._data[digest] = data
        return digest, len(data)

    def open(self, digest: Digest) -> BinaryIO:
        data = self._find(digest)
        return checked(io.BytesIO(data), digest, len(data))

    def read(self, digest: Digest) -> bytes:
        data = self._find(digest)
        if Digest.of(data) != digest:
            raise BlobCorrupt(f"the stored bytes are not {digest}", digest=digest)
        return data

    def has(self, digest: Digest) -> bool:
        return digest in self._data

    def digests(self) -> Iterator[Digest]:
        return iter(sorted(self._data))

    def _find(self, digest: Digest) -> bytes:
        try:
            return self._data[digest]
        except KeyError:
            raise BlobNotFound(f"no blob {digest}", digest=digest) from None
