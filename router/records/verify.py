"""verify: read a trail as an outsider would, and name every place where it is not what was written.

Works on files alone (plus signed heads from the registry's log, without which cutting off the end of a
chain could not be noticed).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from registry.digests import Digest
from registry.errors import InvalidDocument, RecordCorrupt, SignatureInvalid
from registry.log.merkle import Frontier, leaf_hash
from registry.models import PublicKey, RecordHead
from registry.shipping import genesis
from registry.signing.envelope import Envelope, verify
from registry.signing.types import RECORD_HEAD, RECORD_START
from router.records.record import Record
from router.records.segments import read_lines, segments_of
from router.records.start import FILE, Beginning, beginning, marked


@dataclass(frozen=True, slots=True)
class RecordFault:
    file: str
    """``writer/000000.jsonl``; or the writer alone for a fault of its heads."""
    line: int | None
    seq: int | None
    what: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where} (seq {self.seq}): {self.what}" if self.seq is not None else f"{where}: {self.what}"


def verify_records(
    folder: Path, trusted: Mapping[str, PublicKey], heads: Iterable[Envelope]
) -> list[RecordFault]:
    """All faults of every writer's chain below ``folder`` (the router's ``records_dir``); empty if sound.

    ``trusted``: key id -> key, as the log declares them; ``heads``: envelopes found in the log.
    """
    faults: list[RecordFault] = []
    claimed = _heads(heads, trusted, faults)
    writers = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    for writer in sorted(writers | claimed.keys()):
        known = claimed.get(writer, [])
        start, wrong = _start(folder / writer, writer, trusted, known)
        faults.extend(wrong or _chain(folder / writer, writer, start, known))
    return faults


def _heads(
    envelopes: Iterable[Envelope], trusted: Mapping[str, PublicKey], faults: list[RecordFault]
) -> dict[str, list[RecordHead]]:
    found: dict[str, list[RecordHead]] = {}
    for number, envelope in enumerate(envelopes):
        try:
            payload = verify(envelope, payload_type=RECORD_HEAD, trusted=trusted, role="router")
            head = RecordHead.parse(payload)
        except (SignatureInvalid, InvalidDocument) as error:
            faults.append(RecordFault("heads", None, None, f"head {number}: {error.message}"))
        else:
            found.setdefault(head.writer, []).append(head)
    return found


@dataclass(slots=True)
class _Last:
    """The line before the one being read."""

    file: str
    line: int
    seq: int
    digest: Digest


_Digests: TypeAlias = Mapping[int, tuple[Digest, str, int | None]]
"""seq -> the record's digest, file and line; of the one before the first, where that is said."""


def _start(
    folder: Path, writer: str, trusted: Mapping[str, PublicKey], heads: list[RecordHead]
) -> tuple[Beginning, list[RecordFault]]:
    """With a beginning that nobody may claim, no line is where it says: that is the fault to tell."""
    start = Beginning(0, 0, genesis(writer))
    try:
        found = marked(folder)
        if found is None:
            return start, []
        verify(found[0], payload_type=RECORD_START, trusted=trusted, role="router")
        start = beginning(folder, writer)
    except (SignatureInvalid, RecordCorrupt) as error:
        return start, [RecordFault(f"{writer}/{FILE}", None, None, f"not said by a router: {error.message}")]
    if all(head.seq < start.seq - 1 for head in heads):
        what = f"no signed head covers record {start.seq - 1}, after which the chain begins"
        return start, [RecordFault(f"{writer}/{FILE}", None, None, what)]
    return start, []


def _chain(folder: Path, writer: str, start: Beginning, heads: list[RecordHead]) -> list[RecordFault]:
    faults: list[RecordFault] = []
    digests: dict[int, tuple[Digest, str, int | None]] = {
        start.seq - 1: (start.digest, f"{writer}/{FILE}", None)
    }
    last: _Last | None = None
    files = segments_of(folder)
    for number, path in enumerate(files, start.segment):
        if path.stem != f"{number:06d}":
            faults.append(RecordFault(f"{writer}/{path.name}", None, None, "an earlier segment is missing"))
        for line in read_lines(path):
            where = f"{writer}/{path.name}"
            digest = Digest.of(line.data)
            expected = last.seq + 1 if last is not None else start.seq
            try:
                record = Record.parse(line.data)
            except InvalidDocument:
                # Take the place it should have; the next line's prev tells whether more is wrong.
                faults.append(
                    RecordFault(where, line.number, expected, "not a record: its bytes were changed")
                )
                digests.setdefault(expected, (digest, where, line.number))
                last = _Last(where, line.number, expected, digest)
                continue
            if not line.whole:
                faults.append(RecordFault(where, line.number, record.seq, "the last line is torn"))
            faults.extend(_links(record, where, line.number, writer, last, start))
            digests.setdefault(record.seq, (digest, where, line.number))
            last = _Last(where, line.number, record.seq, digest)
    end = last.seq if last is not None else start.seq - 1
    faults.extend(_head_faults(writer, [head for head in heads if head.seq >= start.seq - 1], digests, end))
    if not faults:  # else the same damage would be told again for every head over it
        whole = [head for head in heads if head.first is not None and head.first >= start.seq]
        faults.extend(_root_faults(writer, whole, digests))
        faults.extend(_after_faults(writer, whole, digests))
    return _once(faults)


def _links(
    record: Record, where: str, line: int, writer: str, last: _Last | None, start: Beginning
) -> list[RecordFault]:
    expected = last.seq + 1 if last is not None else start.seq
    if record.writer != writer:
        return [
            RecordFault(where, line, record.seq, f"written by {record.writer!r}, stored under {writer!r}")
        ]
    if record.seq > expected:
        gone = f"{expected}" if record.seq == expected + 1 else f"{expected} to {record.seq - 1}"
        return [RecordFault(where, line, record.seq, f"a gap: seq {gone} is missing before this line")]
    if record.seq < expected:
        return [RecordFault(where, line, record.seq, f"out of order: seq {expected} was expected here")]
    if last is None:
        if record.prev != start.digest:
            return [RecordFault(where, line, record.seq, "does not begin this writer's chain")]
    elif record.prev != last.digest:
        return [
            RecordFault(
                last.file,
                last.line,
                last.seq,
                f"the bytes were changed: they are {last.digest.short}…, line {line} of {where} follows "
                f"{record.prev.short}…",
            )
        ]
    return []


def _head_faults(writer: str, heads: list[RecordHead], digests: _Digests, end: int) -> list[RecordFault]:
    faults: list[RecordFault] = []
    for head in heads:
        stored = digests.get(head.seq)
        if head.seq > end:
            what = f"a signed head covers seq {head.seq}, the trail ends at {'none' if end < 0 else end}"
            faults.append(RecordFault(writer, None, head.seq, f"{what}: the end was cut off"))
        elif stored is None:
            faults.append(
                RecordFault(writer, None, head.seq, "a signed head covers this line; it is missing")
            )
        elif stored[0] != head.digest:
            _, where, line = stored
            what = f"the bytes were changed: {stored[0].short}…, a signed head says {head.digest.short}…"
            faults.append(RecordFault(where, line, head.seq, what))
    return faults


def _root_faults(writer: str, heads: list[RecordHead], digests: _Digests) -> list[RecordFault]:
    return [
        RecordFault(writer, None, head.seq, f"the root of a signed head is not that of seq {head.first} on")
        for head in heads
        if head.root is not None and _root(head.first or 0, head.seq, digests) != head.root
    ]


def _after_faults(writer: str, heads: list[RecordHead], digests: _Digests) -> list[RecordFault]:
    return [
        RecordFault(writer, None, head.seq, f"a signed head has seq {head.first} follow another record")
        for head in heads
        if head.after is not None and head.after != digests[(head.first or 0) - 1][0]
    ]


def _root(first: int, last: int, digests: _Digests) -> Digest | None:
    """Over the digests of these lines; None when one is missing."""
    tree = Frontier()
    for seq in range(first, last + 1):
        if seq not in digests:
            return None
        tree.append(leaf_hash(bytes.fromhex(digests[seq][0].hex)))
    return Digest(f"sha256:{tree.root().hex()}")


def _once(faults: list[RecordFault]) -> list[RecordFault]:
    """The first fault of each line: a later one is the same damage seen from its neighbour or a head."""
    kept: dict[tuple[str, int | None, int | None], RecordFault] = {}
    for fault in faults:
        kept.setdefault((fault.file, fault.line, fault.seq), fault)
    return list(kept.values())
