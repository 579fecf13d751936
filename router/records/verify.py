"""verify: read a trail as an outsider would, and name every place where it is not what was written.

Works on files alone (plus signed heads from the registry's log, without which cutting off the end of a
chain could not be noticed).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.digests import Digest
from registry.errors import InvalidDocument, SignatureInvalid
from registry.log.merkle import Frontier, leaf_hash
from registry.models import PublicKey, RecordHead
from registry.shipping import genesis
from registry.signing.envelope import Envelope, verify
from registry.signing.types import RECORD_HEAD
from router.records.record import Record
from router.records.segments import read_lines, segments_of


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
        faults.extend(_chain(folder / writer, writer, claimed.get(writer, [])))
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


def _chain(folder: Path, writer: str, heads: list[RecordHead]) -> list[RecordFault]:
    faults: list[RecordFault] = []
    digests: dict[int, tuple[Digest, str, int]] = {}
    last: _Last | None = None
    files = segments_of(folder)
    for number, path in enumerate(files):
        if path.stem != f"{number:06d}":
            faults.append(RecordFault(f"{writer}/{path.name}", None, None, "an earlier segment is missing"))
        for line in read_lines(path):
            where = f"{writer}/{path.name}"
            digest = Digest.of(line.data)
            expected = last.seq + 1 if last is not None else 0
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
            faults.extend(_links(record, where, line.number, writer, last))
            digests.setdefault(record.seq, (digest, where, line.number))
            last = _Last(where, line.number, record.seq, digest)
    faults.extend(_head_faults(writer, heads, digests, last))
    if not faults:  # else the same damage would be told again for every head over it
        faults.extend(_root_faults(writer, heads, digests))
        faults.extend(_after_faults(writer, heads, digests))
    return _once(faults)


def _links(record: Record, where: str, line: int, writer: str, last: _Last | None) -> list[RecordFault]:
    expected = last.seq + 1 if last is not None else 0
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
        if record.prev != genesis(writer):
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


def _head_faults(
    writer: str, heads: list[RecordHead], digests: dict[int, tuple[Digest, str, int]], last: _Last | None
) -> list[RecordFault]:
    faults: list[RecordFault] = []
    for head in heads:
        stored = digests.get(head.seq)
        end = last.seq if last is not None else -1
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


def _root_faults(
    writer: str, heads: list[RecordHead], digests: dict[int, tuple[Digest, str, int]]
) -> list[RecordFault]:
    return [
        RecordFault(writer, None, head.seq, f"the root of a signed head is not that of seq {head.first} on")
        for head in heads
        if head.root is not None and _root(head.first or 0, head.seq, digests) != head.root
    ]


def _after_faults(
    writer: str, heads: list[RecordHead], digests: dict[int, tuple[Digest, str, int]]
) -> list[RecordFault]:
    return [
        RecordFault(writer, None, head.seq, f"a signed head has seq {head.first} follow another record")
        for head in heads
        if head.after is not None
        and head.after != (digests[head.first - 1][0] if head.first else genesis(writer))
    ]


def _root(first: int, last: int, digests: Mapping[int, tuple[Digest, str, int]]) -> Digest | None:
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
