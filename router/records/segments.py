"""The files of one writer's chain: ``<folder>/000000.jsonl`` and so on, append-only, one process at a time.

Synchronous; :class:`router.records.log.RecordLog` calls it from a thread of its own. Beside them lies
``head.json``, the last signed head that the registry took: a start checks the chain against it; and, once the
oldest were pruned, ``start.json`` (:mod:`router.records.start`).
"""

import errno
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from registry.canonical import decode
from registry.digests import Digest
from registry.errors import InvalidDocument, RecordCorrupt
from router.errors import RecordsBusy
from router.records.start import Beginning, beginning, locked, reserve

_log = logging.getLogger(__name__)
_LONGEST = 1 << 20
"""Bytes; a record has about a thousand."""
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
    """Of the chain: what a prune that was killed has left before its beginning is none of it."""
    try:
        first = beginning(folder, folder.name).segment
    except RecordCorrupt:  # tenon log verify tells of it, and no router starts
        first = 0
    return [file for file in sorted(folder.glob(PATTERN)) if int(file.stem) >= first]


class Tail(NamedTuple):  # made for every line
    """Where a chain stands: the next line has this ``seq`` and follows ``digest``."""

    seq: int
    digest: Digest


class Place(NamedTuple):
    """Where a line begins."""

    segment: int
    offset: int


Seen: TypeAlias = Callable[[bytes, Place, int, Digest], None]
"""Told of a line (with its newline), where it is, its seq and its digest."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A line that a signed head vouches for."""

    seq: int
    digest: Digest


class Segments:
    def __init__(
        self, folder: Path, *, writer: str, segment_bytes: int, sync: Callable[[int], None] = os.fdatasync
    ) -> None:
        """``sync``: fdatasync leaves out only times of access and change, and takes half as long as fsync
        (ext4 on NVMe: 146 µs against 294)."""
        self.folder = folder
        self._writer = writer
        self._limit = segment_bytes
        self._sync = sync
        self._number = 0
        self._size = 0
        self._dirty = False
        self._forced = hasattr(os, "RWF_DSYNC")
        self._file = -1
        self._lock = -1

    def open(self, seen: Seen, *, newest: int = 0, sealed: Sealed | None = None) -> Tail:
        """Lock the folder, check the end of the chain and be ready to append.

        At least the ``newest`` lines, and all since ``sealed``, are checked link by link and shown to
        ``seen`` with their seq and digest: a chain of any length starts in the time of those. The whole of it
        is checked by ``tenon log verify``. A torn last line (a crash during a write that nobody was promised)
        moves to ``<segment>.torn``; any other fault raises RecordCorrupt. Raises RecordsBusy when another
        process writes here.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take_lock()
            tail = self._resume(seen, newest, sealed)
            self._open_segment(self._number)
            with suppress(BlockingIOError), locked(self.folder):  # else a prune reserves it
                reserve(self.folder)
        except BaseException:
            self.close()
            raise
        return tail

    def head(self) -> bytes | None:
        try:
            return (self.folder / "head.json").read_bytes()
        except FileNotFoundError:
            return None

    def keep_head(self, data: bytes) -> None:
        """Not forced to disk: an older one in its place checks less and is as true."""
        part = self.folder / "head.json.part"
        part.write_bytes(data)
        part.replace(self.folder / "head.json")

    def write(self, data: bytes) -> tuple[int, int]:
        """Append and force to disk; returns (segment number, offset). After an OSError nothing counts."""
        self.rewind()
        if self._size and self._size + len(data) > self._limit:
            self._open_segment(self._number + 1)
        self._dirty = True
        at, rest = self._size, memoryview(data)
        forced = self._forced and self._sync is os.fdatasync
        while rest:
            written = self._put(rest, at) if forced else os.pwrite(self._file, rest, at)
            at, rest = at + written, rest[written:]
        if not (forced and self._forced):
            self._sync(self._file)
        self._dirty = False
        start, self._size = self._size, at
        return self._number, start

    def _put(self, data: memoryview, at: int) -> int:
        """Write and fdatasync in one system call (Linux 4.7): one wait for the interpreter's lock less."""
        try:
            return os.pwritev(self._file, [data], at, os.RWF_DSYNC)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            self._forced = False  # a file system that does not know the flag
            return os.pwrite(self._file, data, at)

    def rewind(self) -> None:
        """Take back what a failed write may have left behind."""
        if self._dirty:
            os.ftruncate(self._file, self._size)
            self._sync(self._file)
            self._dirty = False

    def read(self, place: Place) -> bytes:
        """The line there, without its newline."""
        with self._path(place.segment).open("rb") as stream:
            stream.seek(place.offset)
            return stream.readline().removesuffix(b"\n")

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
        return self.folder / f"{number:06d}.jsonl"

    def _open_segment(self, number: int) -> None:
        opened = os.open(self._path(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._number = opened, number
        self._size = os.fstat(opened).st_size
        directory = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._sync(directory)
        finally:
            os.close(directory)

    def _resume(self, seen: Seen, newest: int, sealed: Sealed | None) -> Tail:
        start = beginning(self.folder, self._writer)
        files = segments_of(self.folder)
        for number, file in enumerate(files, start.segment):
            if file != self._path(number):
                raise RecordCorrupt(f"the record segment {number:06d}.jsonl is missing")
        self._number = start.segment + max(len(files) - 1, 0)
        first, tail = self._begin(files, start, newest, sealed)
        seq, digest, end = tail.seq, tail.digest, b'"writer":"%b"}\n' % self._writer.encode()
        for segment, file in enumerate(files[first:], start=start.segment + first):
            offset = 0
            # Four microseconds a line: a loop over 200,000 has no room for objects.
            with file.open("rb") as stream:
                for data in stream:
                    if data[-1:] != b"\n" and file == files[-1]:
                        self._set_aside(file, data, offset)
                        break
                    if not continues(data, end, seq, digest):
                        raise _broken(file, offset, seq)
                    digest = Digest.of(data[:-1])
                    if sealed is not None and seq == sealed.seq and digest != sealed.digest:
                        raise _broken(file, offset, seq)
                    seen(data, Place(segment, offset), seq, digest)
                    seq += 1
                    offset += len(data)
        tail = Tail(seq, digest)
        if sealed is not None and tail.seq <= sealed.seq:
            raise RecordCorrupt(
                f"a signed head covers seq {sealed.seq}, the chain has {tail.seq} lines: its end was cut off",
                hint="bring back the newest state of the folder, or give this router a new writer name",
            )
        return tail

    def _begin(
        self, files: list[Path], start: Beginning, newest: int, sealed: Sealed | None
    ) -> tuple[int, Tail]:
        """(which of ``files`` to begin with, where the chain stands before it)"""
        found, whole = 0, Tail(start.seq, start.digest)
        for number in range(len(files) - 1, 0, -1):
            with files[number].open("rb") as stream:
                found += sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
            before = whole if found < newest else self._end_of(files[number - 1])
            if found >= newest and (sealed is None or before.seq <= sealed.seq):
                return number, before
        return 0, whole

    def _end_of(self, file: Path) -> Tail:
        last = None
        with file.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _LONGEST))
            last = stream.read().splitlines()[-1:]
        try:
            fields = decode(last[0])
            return Tail(int(fields["seq"]) + 1, Digest.of(last[0]))
        except (InvalidDocument, IndexError, KeyError, TypeError, ValueError):
            raise RecordCorrupt(f"the last line of {file.name} is no record") from None

    def _set_aside(self, file: Path, data: bytes, offset: int) -> None:
        torn = file.with_suffix(".torn")
        with torn.open("ab") as stream:
            stream.write(data + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        with file.open("r+b") as stream:
            stream.truncate(offset)
            os.fsync(stream.fileno())
        _log.warning(
            "records: a torn last line (%d bytes) of %s was moved to %s", len(data), file.name, torn.name
        )


def continues(data: bytes, end: bytes, seq: int, prev: Digest) -> bool:
    """Whether a line (``end``: its writer, the last member) says that it is ``seq`` and follows ``prev``.

    Looked for in its bytes, which takes a twentieth of parsing it: a quote inside a JSON string is escaped,
    so that nothing a record holds can look like these members.
    """
    return (
        b'"prev":"%b",' % prev.encode() in data
        and b'"seq":%d,' % seq in data
        and data[:1] == b"{"
        and data.endswith(end)
    )


def _broken(file: Path, offset: int, seq: int) -> RecordCorrupt:
    with file.open("rb") as stream:
        number = stream.read(offset).count(b"\n") + 1
    return RecordCorrupt(
        f"line {number} of {file.name} (expected seq {seq}) does not continue the chain",
        hint="move the writer's folder away to keep it as evidence, then run tenon log verify on it",
    )
