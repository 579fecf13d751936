"""Folders that are written once, appear whole, and are read without following links."""

import contextlib
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Mark: TypeAlias = tuple[int, int, int, int]
"""(device, inode, mtime in ns, size): changes with every way to write or to swap a file."""


@dataclass(frozen=True, slots=True)
class Stamp:
    folder: tuple[int, int]
    """(device, inode)."""
    files: Mapping[str, Mark]


def stamp_of(folder: Path) -> Stamp:
    """Raises OSError: for a folder that is gone, is a link, or holds anything but plain files."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        own = os.fstat(descriptor)
        files = {}
        for name in os.listdir(descriptor):  # noqa: PTH208 (of a descriptor: nobody can swap it meanwhile)
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(f"{ascii(name)[:80]} is no plain file")
            files[name] = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
    finally:
        os.close(descriptor)
    return Stamp((own.st_dev, own.st_ino), files)


def read_whole(folder: Path, name: str) -> bytes:
    """Raises OSError, also for a link and for what is no plain file."""
    inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=inside)
    finally:
        os.close(inside)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(f"{ascii(name)[:80]} is no plain file")
        return stream.read()


def write_new(path: Path, data: bytes) -> None:
    """Read-only and on disk when this returns. Raises OSError, also when something is there already."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o444)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def publish(draft: Path, folder: Path) -> None:
    """After this, a crash leaves the whole folder or none. The rename fails when ``folder`` has content."""
    sync(draft)
    draft.rename(folder)
    folder.chmod(0o555)  # after the rename: some file systems want a writable folder to move it
    sync(folder.parent)


def sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size_of(folder: Path) -> int:
    """Bytes of all files below; what vanishes meanwhile counts nothing."""
    found = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found += os.lstat(os.path.join(inside, name)).st_size  # noqa: PTH118 (10 times a Path's speed)
    return found


def remove(path: Path) -> None:
    """A folder that :func:`publish` made read-only, or whatever lies in its place. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        path.chmod(0o755)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
