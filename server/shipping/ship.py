"""ship: each record once, in batches named by their range of seqs.

Where to go on is read from what is there, so nothing needs to be remembered: a batch appears whole under
its name, or not at all (:class:`registry.ports.Shelf`), and the next one begins after the last. Only records
under a head that the registry took are shipped: those can no longer be taken back.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from registry.digests import Digest
from registry.errors import InvalidDocument, RecordChainForked, RecordCorrupt
from registry.models import RecordHead
from registry.ports import Shelf
from registry.signing.envelope import Envelope
from router.records.record import Record
from router.records.segments import continues, read_lines, segments_of
from router.records.start import beginning
from server.errors import ShippingBusy

BATCH: Final = 50_000
"""Records; about 15 MB of Parquet, of which a query reads the columns it names."""
_NAME = re.compile(r"(?P<first>[0-9]{15})-(?P<last>[0-9]{15})\.parquet", re.ASCII)


class Begun(NamedTuple):
    """How many records of a writer are at a place, without a gap."""

    records: int
    newest: Digest | None
    """Of the last of them; None when there is none, or when the place cannot tell."""


class Place(Protocol):
    """Where records go. A batch is there whole, or not at all."""

    @property
    def name(self) -> str:
        """Tells it from other places that the same records go to."""
        ...

    def begin(self, writer: str) -> Begun:
        """Raises RecordCorrupt."""
        ...

    def add(self, writer: str, first: int, lines: Sequence[bytes]) -> None: ...


@dataclass(frozen=True, slots=True)
class Files:
    """``WRITER/FIRST-LAST.parquet`` on a shelf."""

    shelf: Shelf
    encoded: Callable[[Sequence[bytes]], bytes]
    newest: Callable[[bytes], Digest]
    """Of the last record in what ``encoded`` gave."""
    name: str = "files"
    _seen: dict[str, tuple[str, Digest]] = field(default_factory=dict)
    """Writer -> its last file and what that ends with: a file never changes."""

    def begin(self, writer: str) -> Begun:
        count, last = shipped(self.shelf, writer)
        if last is None:
            return Begun(count, None)
        known = self._seen.get(writer)
        if known is None or known[0] != last:
            known = self._seen[writer] = (last, self.newest(self.shelf.get(last)))
        return Begun(count, known[1])

    def add(self, writer: str, first: int, lines: Sequence[bytes]) -> None:
        last = first + len(lines) - 1
        if not self.shelf.add(f"{writer}/{first:015d}-{last:015d}.parquet", self.encoded(lines)):
            raise RecordCorrupt(f"the batch {first} to {last} of {writer} is there already")


def ship(folder: Path, place: Place, *, batch: int = BATCH) -> int:
    """How many records of the writer in ``folder`` were shipped now.

    Raises RecordChainForked when what was shipped before is of another chain, RecordCorrupt when it or the
    chain has a gap; ShippingBusy when another process ships this writer there; what ``place`` raises.
    """
    with _alone(folder, place.name), _unpruned(folder):
        (start, newest), sealed = place.begin(folder.name), _sealed(folder)
        if start and newest is not None:
            _require_one_chain(folder, start, newest)
        lines = islice(_lines(folder, start), max(0, sealed + 1 - start))
        count = 0
        while chosen := list(islice(lines, batch)):
            place.add(folder.name, start + count, chosen)
            count += len(chosen)
        if start + count <= sealed:
            raise RecordCorrupt(f"the chain of {folder.name} ends before the seq {sealed} of its head")
    return count


def shipped(shelf: Shelf, writer: str) -> tuple[int, str | None]:
    """(how many records of a writer are there without a gap, the name of the last file).

    Raises RecordCorrupt.
    """
    count, end = 0, None
    names = [(piece.name, _NAME.fullmatch(piece.name.rpartition("/")[2])) for piece in shelf.list(writer)]
    for first, last, name in sorted(
        (int(each["first"]), int(each["last"]), name) for name, each in names if each
    ):
        if first != count:
            raise RecordCorrupt(
                f"of {writer}, the records from {count} on are not where they were shipped to"
            )
        count, end = last + 1, name
    return count, end


def _require_one_chain(folder: Path, count: int, newest: Digest) -> None:
    """Raises RecordChainForked unless the chain in ``folder`` goes on behind ``count`` shipped records."""
    begun = beginning(folder, folder.name)
    if begun.seq == count:
        found: Digest | None = begun.digest
    else:
        line = next(_lines(folder, count - 1), None)
        found = Digest.of(line) if line is not None else None
    if found != newest:
        raise RecordChainForked(
            f"of {folder.name}, {count} records were shipped, and the chain here is another one",
            writer=folder.name,
        )


def _lines(folder: Path, start: int) -> Iterator[bytes]:
    """The chain from seq ``start`` on, each line checked to follow the one before it."""
    begun, files = beginning(folder, folder.name), segments_of(folder)
    if start < begun.seq:
        raise RecordCorrupt(
            f"the records of {folder.name} from {start} to {begun.seq - 1} were pruned",
            hint="ship to the place that holds them already",
        )
    seqs = [_first_seq(file) for file in files]
    end = b'"writer":"%b"}' % folder.name.encode()
    before: Digest | None = begun.digest if start == begun.seq else None
    for number, file in enumerate(files):
        if number + 1 < len(files) and seqs[number + 1] < start:
            continue
        for seq, line in enumerate(read_lines(file), start=seqs[number]):
            if seq < start - 1 or not line.whole:
                continue
            if before is not None and not continues(line.data, end, seq, before):
                raise RecordCorrupt(f"line {line.number} of {file.name} does not continue the chain")
            before = Digest.of(line.data)
            if seq >= start:
                yield line.data


def _first_seq(file: Path) -> int:
    line = next(read_lines(file), None)
    try:
        return Record.parse(line.data).seq if line is not None else 1 << 62
    except InvalidDocument:
        raise RecordCorrupt(f"the first line of {file.name} is no record") from None


def _sealed(folder: Path) -> int:
    """The seq under the last head that the registry took; -1 before any."""
    try:
        return RecordHead.parse(Envelope.parse((folder / "head.json").read_bytes()).body()).seq
    except FileNotFoundError:
        return -1


@contextmanager
def _unpruned(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ShippingBusy(f"the records of {folder.name} are being pruned") from None


@contextmanager
def _alone(folder: Path, place: str) -> Iterator[None]:
    """The file is named by a digest: a place's own name may be long, and is nobody's business."""
    name = f"ship-{Digest.of(place.encode()).hex[:12]}.lock"
    lock = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ShippingBusy(f"another process ships the records of {folder.name} to the same place") from None
    finally:
        os.close(lock)
