"""Blobs as files: ``sha256/ab/<64 hex>``, written once, read-only, never reached through a symlink.

A file appears under its name only complete, checked and on disk; whatever a crash leaves behind lies in
``incoming`` and is never read. Folders are opened step by step relative to each other with O_NOFOLLOW, so a
link planted inside the root cannot redirect a read or a write. (The root itself may be a link: an
operator's choice.)
"""

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from registry.blobs.checked import checked
from registry.digests import Digest, chunks
from registry.errors import BlobCorrupt, BlobNotFound

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a pipe planted under a blob's name must not make a reader wait for ever.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SHARD = re.compile(r"[0-9a-f]{2}", re.ASCII)


class FilesystemBlobs:
    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, stream: BinaryIO, *, expect: Digest | None = None) -> tuple[Digest, int]:
        self._root.mkdir(parents=True, exist_ok=True)
        with _folder(self._root) as root, _subfolder(root, "incoming", make=True) as incoming:
            temporary = secrets.token_hex(16)
            descriptor = os.open(temporary, _NEW, 0o600, dir_fd=incoming)
            try:
                with os.fdopen(descriptor, "w+b") as file:
                    digest, size = _write(file, stream)
                    if expect is not None and digest != expect:
                        raise BlobCorrupt(f"the given bytes are {digest}, not {expect}", digest=expect)
                    os.fchmod(file.fileno(), 0o444)
                # Renamed over an existing file too: the same bytes, or damaged ones that are now healed.
                with (
                    _subfolder(root, "sha256", make=True) as all_blobs,
                    _subfolder(all_blobs, digest.hex[:2], make=True) as shard,
                ):
                    os.rename(temporary, digest.hex, src_dir_fd=incoming, dst_dir_fd=shard)
                    os.fsync(shard)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=incoming)
                raise
        return digest, size

    def open(self, digest: Digest) -> BinaryIO:
        file = self._find(digest)
        try:
            return checked(file, digest, os.fstat(file.fileno()).st_size)
        except BaseException:
            file.close()
            raise

    def read(self, digest: Digest) -> bytes:
        with self._find(digest) as file:
            data = file.read()
        if Digest.of(data) != digest:
            raise BlobCorrupt(f"the stored bytes are not {digest}", digest=digest)
        return data

    def has(self, digest: Digest) -> bool:
        try:
            self._find(digest).close()
        except (BlobNotFound, BlobCorrupt):
            return False
        return True

    def digests(self) -> Iterator[Digest]:
        try:
            with _folder(self._root) as root, _subfolder(root, "sha256") as all_blobs:
                for entry in sorted(os.scandir(all_blobs), key=lambda entry: entry.name):
                    if _SHARD.fullmatch(entry.name):
                        yield from _shard_digests(all_blobs, entry.name)
        except FileNotFoundError:
            return

    def _find(self, digest: Digest) -> BinaryIO:
        try:
            with (
                _folder(self._root) as root,
                _subfolder(root, "sha256") as all_blobs,
                _subfolder(all_blobs, digest.hex[:2]) as shard,
            ):
                descriptor = os.open(digest.hex, _FILE, dir_fd=shard)
        except FileNotFoundError:
            raise BlobNotFound(f"no blob {digest}", digest=digest) from None
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                raise
            raise _not_a_file(digest) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _not_a_file(digest)
        return os.fdopen(descriptor, "rb")


def _write(file: BinaryIO, stream: BinaryIO) -> tuple[Digest, int]:
    """Copy ``stream`` to disk and read it back: the digest is of what the disk gives, not what was sent."""
    sent, kept, size = hashlib.sha256(), hashlib.sha256(), 0
    for piece in chunks(stream):
        sent.update(piece)
        file.write(piece)
        size += len(piece)
    file.flush()
    os.fsync(file.fileno())
    file.seek(0)
    for piece in chunks(file):
        kept.update(piece)
    digest = Digest(f"sha256:{kept.hexdigest()}")
    if digest.hex != sent.hexdigest():
        raise BlobCorrupt("the disk did not give back the bytes that were written to it", digest=digest)
    return digest, size


def _shard_digests(all_blobs: int, name: str) -> Iterator[Digest]:
    try:
        with _subfolder(all_blobs, name) as shard:
            entries = sorted(
                entry.name for entry in os.scandir(shard) if entry.is_file(follow_symlinks=False)
            )
    except NotADirectoryError:
        return
    for entry in entries:
        if len(entry) == 64 and entry.startswith(name) and set(entry) <= set("0123456789abcdef"):
            yield Digest(f"sha256:{entry}")


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _subfolder(parent: int, name: str, *, make: bool = False) -> Iterator[int]:
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
            os.fsync(parent)
    descriptor = os.open(name, _FOLDER, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _not_a_file(digest: Digest) -> BlobCorrupt:
    return BlobCorrupt(f"what is stored as {digest} is not a regular file", digest=digest)
