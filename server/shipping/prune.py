"""prune: take the oldest segments of a writer's chain away, once they are vouched for and kept elsewhere.

First the router's key says, on disk, where the chain begins from now on; then the segments go. Killed in
between, the chain begins there already, and the next run takes what is left. The newest segment stays, so the
router that writes to it need not be asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from registry.canonical import decode
from registry.clock import Clock, stamp
from registry.digests import Digest
from registry.errors import RecordChainForked, RecordCorrupt
from registry.shipping import KnownHead
from registry.signing.keys import Signer
from registry.signing.types import RECORD_START
from registry.usage import UsageCounted
from router.records.segments import PATTERN, Tail, continues, read_lines, segments_of
from router.records.start import Beginning, RecordStart, beginning, force, keep, locked, reserve
from router.retention import texts
from server.errors import PruningBusy
from server.shipping.ship import Place

_SLACK = timedelta(hours=1)
"""A text is on disk moments before its record; the clocks of disk and router may be this far apart."""


class Catalog(Protocol):
    def record_head_known(self, writer: str) -> KnownHead: ...
    def usage_counted(self, writer: str) -> UsageCounted: ...


@dataclass(frozen=True, slots=True)
class Pruned:
    records: int
    begins: int
    """Seq of the first record that is here now."""
    freed: int
    """Bytes, those of texts too."""


@dataclass(frozen=True, slots=True)
class _Segment:
    file: Path
    tail: Tail
    """After its last line."""
    newest: datetime


def prune(
    folder: Path, catalog: Catalog, places: Sequence[Place], *, before: datetime, signer: Signer, clock: Clock
) -> Pruned:
    """Of the writer in ``folder``: whole segments whose newest record is older than ``before``, under a head
    in the registry's log, counted as usage, and at all ``places``.

    Raises RecordCorrupt or RecordChainForked, and removes nothing, when the chain up to the newest head or
    what was shipped of it does not fit; PruningBusy; what ``catalog`` and ``places`` raise.
    """
    with _alone(folder):
        return _prune(folder, catalog, places, before=before, signer=signer, clock=clock)


def _prune(
    folder: Path, catalog: Catalog, places: Sequence[Place], *, before: datetime, signer: Signer, clock: Clock
) -> Pruned:
    writer = folder.name
    start = beginning(folder, writer)
    known, counted = catalog.record_head_known(writer), catalog.usage_counted(writer).seq
    shipped = [place.begin(writer) for place in places]
    expected = {known.seq: known.digest}
    for each in shipped:
        if each.newest is not None and expected.setdefault(each.records - 1, each.newest) != each.newest:
            raise RecordChainForked(f"of {writer}, two places hold different records", writer=writer)
    most = min(known.seq, counted, *(each.records - 1 for each in shipped))
    gone: _Segment | None = None
    for segment in _older(folder, start, expected):
        if segment.tail.seq - 1 > most or segment.newest >= before:
            break
        gone = segment
    removed = 0
    if gone is not None:
        removed = gone.tail.seq - start.seq
        start = Beginning(int(gone.file.stem) + 1, *gone.tail)
        said = RecordStart(
            writer=writer, segment=start.segment, seq=start.seq, after=start.digest, at=stamp(clock.now())
        )
        keep(folder, signer.sign(RECORD_START, said.canonical()))
    freed = _remove([*_left(folder, start), *_texts(folder, start)])
    reserve(folder)
    return Pruned(removed, start.seq, freed)


def _older(folder: Path, start: Beginning, expected: Mapping[int, Digest]) -> list[_Segment]:
    """All but the newest segment, as far as ``expected`` goes: seq -> what the digest there must be."""
    files = segments_of(folder)
    found: list[_Segment] = []
    tail, end = Tail(start.seq, start.digest), b'"writer":"%b"}' % folder.name.encode()
    last = max(expected)
    _require(folder, tail, expected)
    for file in files:
        data = b""
        for line in read_lines(file):
            if tail.seq > last:
                return found
            if not line.whole or not continues(line.data, end, *tail):
                raise RecordCorrupt(f"line {line.number} of {file.name} does not continue the chain")
            data, tail = line.data, Tail(tail.seq + 1, Digest.of(line.data))
            _require(folder, tail, expected)
        if data and file != files[-1]:
            found.append(_Segment(file, tail, _at(data)))
    if tail.seq <= last:
        raise RecordCorrupt(f"the chain of {folder.name} ends before record {last}, which is known elsewhere")
    return found


def _require(folder: Path, tail: Tail, expected: Mapping[int, Digest]) -> None:
    if expected.get(tail.seq - 1, tail.digest) != tail.digest:
        raise RecordChainForked(
            f"record {tail.seq - 1} of {folder.name} is not the one that is known elsewhere",
            writer=folder.name,
        )


def _left(folder: Path, start: Beginning) -> list[Path]:
    return [file for file in sorted(folder.glob(PATTERN)) if int(file.stem) < start.segment]


def _texts(folder: Path, start: Beginning) -> list[Path]:
    """Segments of texts that were finished before the first record that stays; never the newest."""
    files = sorted((folder / texts.FOLDER).glob(texts.PATTERN))[:-1]
    first = next((line for file in segments_of(folder) for line in read_lines(file)), None)
    if not start.seq or first is None:
        return []
    end = (_at(first.data) - _SLACK).timestamp()
    return [file for file in files if file.stat().st_mtime < end]


def _at(line: bytes) -> datetime:
    return datetime.fromisoformat(decode(line)["at"]).astimezone(UTC)


def _remove(files: Sequence[Path]) -> int:
    freed = 0
    for file in files:
        freed += file.stat().st_size
        file.unlink()
    for folder in {file.parent for file in files}:
        force(folder)
    return freed


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        with locked(folder):
            yield
    except BlockingIOError:
        raise PruningBusy(f"another process prunes the records of {folder.name}") from None
