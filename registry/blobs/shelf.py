"""Small pieces as files, each complete and on disk before it has its name."""

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from registry.blobs.disk import writable
from registry.ports import Leftovers, Piece

_HALF = "."
"""What the name of a file begins with that is not whole; nothing is listed under such a name."""


class FilesystemShelf:
    def __init__(self, root: Path) -> None:
        self._root = root

    def add(self, name: str, data: bytes) -> bool:
        path = self._root / name
        half = path.with_name(f"{_HALF}{secrets.token_hex(8)}")
        with writable():
            try:
                self._write(half, data)
                try:
                    os.link(half, path)  # unlike rename, link fails if somebody was faster
                except FileExistsError:
                    return False
                _sync(path.parent)
            finally:
                with suppress(FileNotFoundError):
                    half.unlink()
        return True

    def get(self, name: str) -> bytes:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None

    def has(self, name: str) -> bool:
        return (self._root / name).is_file()

    def list(self, folder: str) -> Iterator[Piece]:
        for path in sorted((self._root / folder).rglob("*"), key=lambda path: path.parts):
            with suppress(FileNotFoundError, NotADirectoryError):
                found = path.lstat()
                if path.is_file() and not path.name.startswith(_HALF):
                    at = datetime.fromtimestamp(found.st_mtime, UTC)
                    yield Piece(path.relative_to(self._root).as_posix(), found.st_size, at)

    def remove(self, name: str) -> None:
        path = self._root / name
        with suppress(FileNotFoundError):
            path.unlink()
        with suppress(OSError):  # not empty, or gone: both are fine
            path.parent.rmdir()

    def leftovers(self, *, before: datetime, delete: bool) -> Leftovers:
        count = size = 0
        for path in list(self._root.rglob(f"{_HALF}*")):
            with suppress(FileNotFoundError):
                found = path.lstat()
                if path.is_file() and found.st_mtime < before.timestamp():
                    if delete:
                        path.unlink()
                    count, size = count + 1, size + found.st_size
        return Leftovers(count, size)

    def _write(self, path: Path, data: bytes) -> None:
        with os.fdopen(self._create(path), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _create(self, path: Path) -> int:
        while True:
            _make(path.parent)
            try:
                return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # its folder was empty, and `remove` took it away in between


def _make(folder: Path) -> None:
    """Durable, as what will lie in it must be."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
