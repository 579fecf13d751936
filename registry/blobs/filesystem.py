"""Blobs as files: ``sha256/ab/<64 hex>``, written once, read-only, never reached through a symlink.

A file appears under its name only complete, checked and on disk; whatever a crash leaves behind lies in
``incoming`` and is never read. Folders are opened step by step relative to each other with O_NOFOLLOW, so a
link planted inside the root cannot redirect a read or a write. (The root itself may be a link: an
operator's choice.)

A file's age is its mtime. Whoever puts or renews holds the shard's folder shared, whoever deletes holds it
alone (flock), so that a look at the age and the deletion are one step.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from registry.blobs.checked import checked
from registry.blobs.disk import writable
from registry.blobs.part import part
from registry.digests import Digest, chunks
from registry.errors import BlobCorrupt, BlobNotFound
from registry.ports import Leftovers, Stored

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a pipe planted under a blob's name must not make a reader wait for ever.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SHARD = re.compile(r"[0-9a-f]{2}", re.ASCII)


class FilesystemBlobs:
    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, stream: BinaryIO, *, expect: Digest | None = None) -> tuple[Digest, int]:
        with writable():
            return self._put(stream, expect)

    def _put(self, stream: BinaryIO, expect: Digest | None) -> tuple[Digest, int]:
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
                    os.utime(file.fileno())  # a slow sender: its first bytes may be hours old
                # Renamed over an existing file too: the same bytes, or damaged ones that are now healed.
                with (
                    _subfolder(root, "sha256", make=True) as all_blobs,
                    _subfolder(all_blobs, digest.hex[:2], make=True) as shard,
                    _held(shard, fcntl.LOCK_SH),
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
        return (item.digest for item in self.stored())

    def stat(self, digest: Digest) -> Stored:
        with self._find(digest) as file:
            return _stored(digest, os.fstat(file.fileno()))

    def stored(self) -> Iterator[Stored]:
        try:
            with _folder(self._root) as root, _subfolder(root, "sha256") as all_blobs:
                for entry in sorted(os.scandir(all_blobs), key=lambda entry: entry.name):
                    if _SHARD.fullmatch(entry.name):
                        yield from _shard(all_blobs, entry.name)
        except FileNotFoundError:
            return

    def renew(self, digest: Digest) -> bool:
        if not self.has(digest):
            return False
        with self._shard(digest) as shard, _held(shard, fcntl.LOCK_SH), writable():
            try:
                os.utime(digest.hex, dir_fd=shard, follow_symlinks=False)
            except FileNotFoundError:
                return False
        return True

    def open_unchecked(self, digest: Digest, *, start: int, size: int) -> BinaryIO:
        file = self._find(digest)
        file.seek(start)
        return part(file, size)

    def delete_for_ever(self, digest: Digest, *, unless_renewed_since: datetime) -> bool:
        try:
            with self._shard(digest) as shard, _held(shard, fcntl.LOCK_EX):
                found = os.stat(digest.hex, dir_fd=shard, follow_symlinks=False)
                if _stored(digest, found).renewed_at >= unless_renewed_since:
                    return False
                os.unlink(digest.hex, dir_fd=shard)
                os.fsync(shard)
        except FileNotFoundError:
            return False
        return True

    def leftovers(self, *, before: datetime, delete: bool) -> Leftovers:
        count = size = 0
        try:
            with _folder(self._root) as root, _subfolder(root, "incoming") as incoming:
                for entry in list(os.scandir(incoming)):
                    with suppress(FileNotFoundError):
                        found = os.stat(entry.name, dir_fd=incoming, follow_symlinks=False)
                        if not stat.S_ISREG(found.st_mode) or found.st_mtime >= before.timestamp():
                            continue
                        if delete:
                            os.unlink(entry.name, dir_fd=incoming)
                        count, size = count + 1, size + found.st_size
        except FileNotFoundError:
            pass
        return Leftovers(count, size)

    @contextmanager
    def _shard(self, digest: Digest) -> Iterator[int]:
        with (
            _folder(self._root) as root,
            _subfolder(root, "sha256") as all_blobs,
            _subfolder(all_blobs, digest.hex[:2]) as shard,
        ):
            yield shard

    def _find(self, digest: Digest) -> BinaryIO:
        try:
            with self._shard(digest) as shard:
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


def _shard(all_blobs: int, name: str) -> Iterator[Stored]:
    found: list[Stored] = []
    try:
        with _subfolder(all_blobs, name) as shard:
            for entry in os.scandir(shard):
                hexed = entry.name
                if len(hexed) == 64 and hexed.startswith(name) and set(hexed) <= set("0123456789abcdef"):
                    with suppress(FileNotFoundError):
                        status = os.stat(hexed, dir_fd=shard, follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            found.append(_stored(Digest(f"sha256:{hexed}"), status))
    except NotADirectoryError:
        return
    yield from sorted(found, key=lambda item: item.digest)


def _stored(digest: Digest, status: os.stat_result) -> Stored:
    return Stored(digest, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


@contextmanager
def _held(folder: int, how: int) -> Iterator[None]:
    fcntl.flock(folder, how)
    try:
        yield
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)


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
