"""The files of one writer's chain: ``<folder>/000000.jsonl`` and so on, append-only, one process at a time.

Synchronous; :class:`router.records.log.RecordLog` calls it from a thread of its own.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from registry.canonical import decode
from registry.digests import Digest
from registry.errors import InvalidDocument, RecordCorrupt
from router.errors import RecordsBusy
from router.records.record import genesis

_log = logging.getLogger(__name__)
PATTERN = "[0-9][0-9][0-9][0-9][0-9][0-9].jsonl"


@dataclass(frozen=True, slots=True)
class Line:
    """A stored line and where it is."""

    file: Path
    number: int
    """From 1, as editors count."""
    offset: int
    data: bytes
    """Without the newline."""
    whole: bool
    """False for a last line without newline: a write that did not finish."""


def read_lines(file: Path) -> Iterator[Line]:
    """All lines of a segment, in order."""
    offset = 0
    with file.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            whole = raw.endswith(b"\n")
            yield Line(file, number, offset, raw[:-1] if whole else raw, whole)
            offset += len(raw)


def segments_of(folder: Path) -> list[Path]:
    return sorted(folder.glob(PATTERN))


@dataclass(frozen=True, slots=True)
class Tail:
    """Where a chain stands: the next line has this ``seq`` and follows ``digest``."""

    seq: int
    digest: Digest


class Segments:
    def __init__(
        self, folder: Path, *, writer: str, segment_bytes: int, sync: Callable[[int], None] = os.fsync
    ) -> None:
        self._folder = folder
        self._writer = writer
        self._limit = segment_bytes
        self._sync = sync
        self._number = 0
        self._size = 0
        self._dirty = False
        self._file = -1
        self._lock = -1

    def open(self, seen: Callable[[Line, dict[str, object]], None]) -> Tail:
        """Lock the folder, check the whole chain and be ready to append.

        ``seen`` is called with each line and its fields. A torn last line (a crash during a write that
        nobody was promised) moves to ``<segment>.torn``; any other fault raises RecordCorrupt. Raises
        RecordsBusy when another process writes here.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take_lock()
            tail = self._resume(seen)
            self._open_segment(self._number)
        except BaseException:
            self.close()
            raise
        return tail

    def write(self, data: bytes) -> tuple[int, int]:
        """Append and force to disk; returns (segment number, offset). After an OSError nothing counts."""
        self.rewind()
        if self._size and self._size + len(data) > self._limit:
            self._open_segment(self._number + 1)
        self._dirty = True
        at, rest = self._size, memoryview(data)
        while rest:
            written = os.pwrite(self._file, rest, at)
            at, rest = at + written, rest[written:]
        self._sync(self._file)
        self._dirty = False
        start, self._size = self._size, at
        return self._number, start

    def rewind(self) -> None:
        """Take back what a failed write may have left behind."""
        if self._dirty:
            os.ftruncate(self._file, self._size)
            self._sync(self._file)
            self._dirty = False

    def read(self, number: int, offset: int, length: int) -> bytes:
        with self._path(number).open("rb") as stream:
            stream.seek(offset)
            return stream.read(length)

    def close(self) -> None:
        with suppress(OSError):  # the next start would find a torn line and set it aside
            self.rewind()
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecordsBusy from None

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.jsonl"

    def _open_segment(self, number: int) -> None:
        opened = os.open(self._path(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._number = opened, number
        self._size = os.fstat(opened).st_size
        directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._sync(directory)
        finally:
            os.close(directory)

    def _resume(self, seen: Callable[[Line, dict[str, object]], None]) -> Tail:
        tail = Tail(0, genesis(self._writer))
        files = segments_of(self._folder)
        for number, file in enumerate(files):
            if file != self._path(number):
                raise RecordCorrupt(f"the record segment {number:06d}.jsonl is missing")
            for line in read_lines(file):
                if not line.whole and file == files[-1]:
                    self._set_aside(line)
                    break
                fields = self._fields(line, tail)
                seen(line, fields)
                tail = Tail(tail.seq + 1, Digest.of(line.data))
        self._number = max(len(files) - 1, 0)
        return tail

    def _fields(self, line: Line, tail: Tail) -> dict[str, object]:
        try:
            fields = decode(line.data)
        except InvalidDocument:
            fields = None
        expected = {"writer": self._writer, "seq": tail.seq, "prev": tail.digest}
        if isinstance(fields, dict) and all(fields.get(name) == value for name, value in expected.items()):
            return fields
        raise RecordCorrupt(
            f"line {line.number} of {line.file.name} (expected seq {tail.seq}) does not continue the chain",
            hint="move the writer's folder away to keep it as evidence, then run tenon log verify on it",
        )

    def _set_aside(self, line: Line) -> None:
        torn = line.file.with_suffix(".torn")
        with torn.open("ab") as stream:
            stream.write(line.data + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        with line.file.open("r+b") as stream:
            stream.truncate(line.offset)
            os.fsync(stream.fileno())
        _log.warning(
            "records: a torn last line (%d bytes) of %s was moved to %s",
            len(line.data),
            line.file.name,
            torn.name,
        )
