"""The file that a child's output is appended to, kept small: it lies on the disk of the node's adapters."""

import contextlib
import shutil
from pathlib import Path
from typing import Final

LARGEST: Final = 16 << 20
"""Bytes. With the one before, and the same for merges, 64 MiB."""


def before(log: Path) -> Path:
    """Where the lines of before are."""
    return log.with_name(f"{log.name}.1")


def keep_small(log: Path, *, largest: int = LARGEST) -> bool:
    """Begin anew above ``largest`` bytes, and keep what was there as :func:`before`; whether that was needed.

    The file stays the same one, for a child goes on to append to it: a line that it writes at that moment may
    be lost. Where the disk is full, the lines of before are lost, as a full disk is worse.
    """
    try:
        if log.stat().st_size <= largest:
            return False
        kept = before(log)
        try:
            shutil.copyfile(log, kept)
        except OSError:
            kept.unlink(missing_ok=True)
        with log.open("r+b") as stream:
            stream.truncate()
    except OSError:
        return False
    return True


def size_of_logs(folder: Path) -> int:
    """Bytes of logs, and of those before them, that lie in ``folder`` itself."""
    found = 0
    for log in (*folder.glob("*.log"), *folder.glob("*.log.1")):
        with contextlib.suppress(OSError):
            found += log.lstat().st_size
    return found
