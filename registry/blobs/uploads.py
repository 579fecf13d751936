"""Resumable uploads: a blob that arrives in chunks, over connections that break and to any replica.

A chunk is a piece named by the offset of its first byte; what has arrived is the pieces that follow each
other from 0 on. So there is no counter that could disagree with the bytes, and a crash loses what was not
acknowledged and nothing else. The digest decides in the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Final, cast

from registry.blobs.claims import Claims
from registry.blobs.errors import (
    BlobTooLarge,
    TooManyUploads,
    UploadFragmented,
    UploadMismatch,
    UploadMisplaced,
    UploadNotFound,
    UploadOverrun,
)
from registry.digests import Digest
from registry.errors import BlobCorrupt, InvalidInput
from registry.names import parse_name
from registry.ports import BlobStore, Leftovers, Shelf

PIECE: Final = 8 << 20
"""Bytes of one piece; what a process holds of an upload at a time, and what a crash can cost."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    max_size: int = 4 << 30
    """Bytes of a blob. Rank 64 on all layers of a 70B model in bfloat16 is 1.6 GB; S3 copies up to 5 GiB."""
    max_open: int = 16
    """Uploads of a tenant under way. Begun at once they may be a few more: no lock spans replicas."""
    max_pieces: int = 4096
    """Of one upload: chunks of 1 MiB for the largest blob."""


@dataclass(frozen=True, slots=True)
class Upload:
    size: int
    offset: int
    """Where the next byte belongs."""
    pieces: tuple[str, ...]
    """Names, in order of their bytes."""
    touched: datetime


class Uploads:
    def __init__(
        self,
        shelf: Shelf,
        blobs: BlobStore,
        *,
        limits: UploadLimits | None = None,
    ) -> None:
        self._shelf = shelf
        self._blobs = blobs
        self._claims = Claims(shelf)
        self.limits = limits or UploadLimits()

    @property
    def claims(self) -> Claims:
        return self._claims

    def whole(self, tenant: str, digest: Digest, stream: BinaryIO) -> int:
        """A blob in one go; its size. Raises UploadMismatch, BlobTooLarge; then nothing of it was kept."""
        parse_name(tenant, "tenant")
        limited = _Limited(stream, self.limits.max_size)
        try:
            _, size = self._blobs.put(cast("BinaryIO", limited), expect=digest)
        except BlobCorrupt as error:
            raise UploadMismatch("the bytes sent are not those of the digest") from error
        self._claims.add(tenant, digest)
        return size

    def begin(self, tenant: str, digest: Digest, size: int) -> int:
        """The offset to go on from: 0, what came before, or ``size`` when nothing needs to be sent.

        A blob that only others have sent is sent again: that it is there is not this tenant's to know.
        """
        if size < 0:
            raise InvalidInput("a size is 0 or more")
        if size > self.limits.max_size:
            raise BlobTooLarge(f"a blob may have {self.limits.max_size} bytes at most, this one has {size}")
        if self._claims.has(tenant, digest) and self._blobs.renew(digest):
            return size
        found = self._find(tenant, digest)
        if found is not None and found.size != size:
            self._drop(tenant, digest)
            found = None
        if found is None:
            open_now = {piece.name.split("/")[2] for piece in self._shelf.list(_folder(tenant))}
            if len(open_now - {digest.hex}) >= self.limits.max_open:
                raise TooManyUploads(f"{self.limits.max_open} uploads are under way already")
            self._shelf.add(f"{_folder(tenant, digest)}/size-{size}", b"")
        return self._finished(tenant, digest).offset

    def offset(self, tenant: str, digest: Digest) -> Upload:
        """Raises UploadNotFound."""
        found = self._find(tenant, digest)
        if found is None:
            raise UploadNotFound("no such upload is under way")
        return found

    def append(self, tenant: str, digest: Digest, offset: int, stream: BinaryIO) -> int:
        """The new offset. With the last byte the digest is checked and the blob stored.

        What arrived of a stream that breaks off is kept, from its beginning and without a gap, and the
        stream's error is raised. Raises UploadNotFound, UploadMisplaced, UploadOverrun, UploadFragmented,
        UploadMismatch.
        """
        found = self.offset(tenant, digest)
        if offset != found.offset:
            raise _misplaced(found.offset)
        count = len(found.pieces)
        for piece, broken in _arriving(stream, PIECE):
            if offset + len(piece) > found.size:
                raise UploadOverrun(f"more bytes came than the {found.size} that were announced")
            if count >= self.limits.max_pieces:
                self._drop(tenant, digest)
                raise UploadFragmented(f"the upload came in more than {self.limits.max_pieces} chunks")
            if piece and not self._shelf.add(f"{_folder(tenant, digest)}/{offset:015d}", piece):
                raise _misplaced(self.offset(tenant, digest).offset)
            offset, count = offset + len(piece), count + 1
            if broken is not None:
                raise broken
        return self._finished(tenant, digest).offset

    def sweep(self, *, before: datetime, delete: bool) -> Leftovers:
        """Uploads to which nothing came since ``before``, and halves of pieces."""
        size = 0
        abandoned: dict[tuple[str, str], datetime] = {}
        sizes: dict[tuple[str, str], int] = {}
        for piece in self._shelf.list("uploads"):
            _, tenant, hexed, _ = piece.name.split("/")
            known = abandoned.get((tenant, hexed), piece.at)
            abandoned[tenant, hexed] = max(known, piece.at)
            sizes[tenant, hexed] = sizes.get((tenant, hexed), 0) + piece.size
        old = [key for key, touched in abandoned.items() if touched < before]
        for tenant, hexed in old:
            size += sizes[tenant, hexed]
            if delete:
                self._drop(tenant, Digest(f"sha256:{hexed}"))
        halves = self._shelf.leftovers(before=before, delete=delete)
        return Leftovers(len(old) + halves.count, size + halves.size)

    def _find(self, tenant: str, digest: Digest) -> Upload | None:
        size, offset, names = -1, 0, []
        touched: datetime | None = None
        for piece in self._shelf.list(_folder(tenant, digest)):  # by name, so by offset, and "size-…" last
            name = piece.name.rpartition("/")[2]
            touched = max(touched or piece.at, piece.at)
            if name.startswith("size-"):
                size = int(name[5:])
            elif int(name) == offset:  # what does not follow is of an older attempt that was swept
                names.append(piece.name)
                offset += piece.size
        if size < 0 or touched is None:
            return None
        return Upload(size, offset, tuple(names), touched)

    def _finished(self, tenant: str, digest: Digest) -> Upload:
        """The upload as it is now, stored if it is complete."""
        found = self._find(tenant, digest)
        if found is None:
            if self._claims.has(tenant, digest):  # a second request was faster
                size = self._blobs.stat(digest).size
                return Upload(size, size, (), self._blobs.stat(digest).renewed_at)
            raise UploadNotFound("the upload was given up meanwhile")
        if found.offset < found.size:
            return found
        try:
            self._blobs.put(cast("BinaryIO", _Chain(self._shelf, found.pieces)), expect=digest)
        except BlobCorrupt as error:
            self._drop(tenant, digest)
            raise UploadMismatch("the bytes sent are not those of the digest: nothing was kept") from error
        except KeyError:
            if not self._claims.has(tenant, digest):
                raise _misplaced(self.offset(tenant, digest).offset) from None
        self._claims.add(tenant, digest)
        self._drop(tenant, digest)
        return found

    def _drop(self, tenant: str, digest: Digest) -> None:
        """From the first byte on, the size last: whenever this is cut short, what is left is shorter."""
        for piece in list(self._shelf.list(_folder(tenant, digest))):
            self._shelf.remove(piece.name)


class _Chain:
    """Pieces one after the other, one in memory at a time. Raises KeyError for one that is gone."""

    def __init__(self, shelf: Shelf, names: tuple[str, ...]) -> None:
        self._shelf = shelf
        self._names = iter(names)
        self._piece = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        while not self._piece:
            name = next(self._names, None)
            if name is None:
                return b""
            self._piece = memoryview(self._shelf.get(name))
        if size < 0:
            return bytes(self._piece) + b"".join(self._shelf.get(name) for name in self._names)
        data, self._piece = bytes(self._piece[:size]), self._piece[size:]
        return data


class _Limited:
    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise BlobTooLarge("the blob is larger than any that is taken")
        return data


def _arriving(stream: BinaryIO, size: int) -> Iterator[tuple[bytes, Exception | None]]:
    """Pieces of ``size`` bytes; with the last one the error that ended the stream, if one did."""
    while True:
        found, broken, ended = bytearray(), None, False
        try:
            while len(found) < size and not ended:
                data = stream.read(size - len(found))
                found += data
                ended = not data
        except Exception as error:
            broken = error
        if found or broken is not None:
            yield bytes(found), broken
        if ended or broken is not None:
            return


def _misplaced(offset: int) -> UploadMisplaced:
    return UploadMisplaced(f"the next byte of this upload is byte {offset}", offset=offset)


def _folder(tenant: str, digest: Digest | None = None) -> str:
    return f"uploads/{parse_name(tenant, 'tenant')}" + (f"/{digest.hex}" if digest else "")
