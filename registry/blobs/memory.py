"""Blobs in a dict, for tests. Gone with the process."""

import io
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO

from registry.blobs.checked import checked
from registry.clock import Clock, SystemClock
from registry.digests import Digest, chunks
from registry.errors import BlobCorrupt, BlobNotFound
from registry.ports import Leftovers, Piece, Stored


class InMemoryBlobs:
    def __init__(self, clock: Clock | None = None) -> None:
        self._data: dict[Digest, bytes] = {}
        self._renewed: dict[Digest, datetime] = {}
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()

    def put(self, stream: BinaryIO, *, expect: Digest | None = None) -> tuple[Digest, int]:
        data = b"".join(chunks(stream))
        digest = Digest.of(data)
        if expect is not None and digest != expect:
            raise BlobCorrupt(f"the given bytes are {digest}, not {expect}", digest=expect)
        with self._lock:
            self._data[digest] = data
            self._renewed[digest] = self._clock.now()
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

    def stat(self, digest: Digest) -> Stored:
        with self._lock:
            return Stored(digest, len(self._find(digest)), self._renewed[digest])

    def stored(self) -> Iterator[Stored]:
        for digest in self.digests():
            yield self.stat(digest)

    def renew(self, digest: Digest) -> bool:
        with self._lock:
            if digest in self._data:
                self._renewed[digest] = self._clock.now()
            return digest in self._data

    def open_unchecked(self, digest: Digest, *, start: int, size: int) -> BinaryIO:
        return io.BytesIO(self._find(digest)[start : start + size])

    def delete_for_ever(self, digest: Digest, *, unless_renewed_since: datetime) -> bool:
        with self._lock:
            if digest not in self._data or self._renewed[digest] >= unless_renewed_since:
                return False
            del self._data[digest], self._renewed[digest]
            return True

    def leftovers(self, *, before: datetime, delete: bool) -> Leftovers:
        return Leftovers(0, 0)

    def _find(self, digest: Digest) -> bytes:
        try:
            return self._data[digest]
        except KeyError:
            raise BlobNotFound(f"no blob {digest}", digest=digest) from None


class InMemoryShelf:
    def __init__(self, clock: Clock | None = None) -> None:
        self._pieces: dict[str, tuple[bytes, datetime]] = {}
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()

    def add(self, name: str, data: bytes) -> bool:
        with self._lock:
            if name in self._pieces:
                return False
            self._pieces[name] = (data, self._clock.now())
            return True

    def get(self, name: str) -> bytes:
        return self._pieces[name][0]

    def has(self, name: str) -> bool:
        return name in self._pieces

    def list(self, folder: str) -> Iterator[Piece]:
        with self._lock:
            found = sorted(self._pieces.items())
        for name, (data, at) in found:
            if name.startswith(f"{folder}/"):
                yield Piece(name, len(data), at)

    def remove(self, name: str) -> None:
        with self._lock:
            self._pieces.pop(name, None)

    def leftovers(self, *, before: datetime, delete: bool) -> Leftovers:
        return Leftovers(0, 0)
