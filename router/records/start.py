"""Where a chain begins on this disk: with its writer's first record, or after those that were pruned.

The router's key signs it: whoever has the volume alone can take segments away, and not say that it was meant.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from registry.canonical import Document
from registry.digests import Digest
from registry.errors import InvalidDocument, RecordCorrupt
from registry.shipping import genesis
from registry.signing.envelope import Envelope

FILE = "start.json"
_PART = f"{FILE}.part"
_ROOM = 4096
"""Bytes, a block; an envelope has about 700."""


class RecordStart(Document):
    kind: Literal["tenon.record-start/v1"] = "tenon.record-start/v1"
    writer: str = Field(min_length=1, max_length=200)
    segment: int = Field(ge=1)
    """The first that counts; one before it was being removed when the process was killed."""
    seq: int = Field(ge=1)
    """Of its first line."""
    after: Digest
    """Of the record before that line."""
    at: str = Field(max_length=40)


class Beginning(NamedTuple):
    segment: int
    seq: int
    """Of the first line that is here."""
    digest: Digest
    """Of the record before it, or the writer's genesis."""


def marked(folder: Path) -> tuple[Envelope, RecordStart] | None:
    """What the folder says of itself; nobody has checked the signature. Raises RecordCorrupt."""
    try:
        envelope = Envelope.parse((folder / FILE).read_bytes())
        return envelope, RecordStart.parse(envelope.body())
    except FileNotFoundError:
        return None
    except InvalidDocument as error:
        raise RecordCorrupt(f"{FILE} of {folder.name} cannot be read: {error.message}") from None


def beginning(folder: Path, writer: str) -> Beginning:
    """Raises RecordCorrupt."""
    found = marked(folder)
    if found is None:
        return Beginning(0, 0, genesis(writer))
    _, start = found
    if start.writer != writer:
        raise RecordCorrupt(f"{FILE} in the folder of {writer} is of the writer {start.writer}")
    return Beginning(start.segment, start.seq, start.after)


def keep(folder: Path, envelope: Envelope) -> None:
    """On disk for good when it returns: what it stands for is removed after that."""
    part = folder / _PART
    opened = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(opened, "r+b") as stream:
        stream.write(envelope.canonical())
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(folder / FILE)
    force(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """For who changes where the chain begins. The folder itself: on a full disk no file can be made for it.
    Raises BlockingIOError."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def reserve(folder: Path) -> None:
    """In ``locked``. Room for the next beginning: it is wanted when the disk is full."""
    part = folder / _PART
    with suppress(OSError):
        if not part.exists() or part.stat().st_size < _ROOM:
            part.write_bytes(bytes(_ROOM))


def force(folder: Path) -> None:
    """The names in it to disk."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
