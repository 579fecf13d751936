"""Take the records that routers ship: in order, each once, and only what a signed head vouches for."""

from typing import Any

from registry import canonical
from registry.catalog.errors import RecordsInvalid, RecordsMissing
from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.shipping import RecordBatch, Stored, StoredRecord, genesis
from registry.store.transaction import Transaction


def stored(rows: Transaction, writer: str) -> Stored:
    tail = rows.shipped.tail(writer)
    return Stored(writer=writer, next=0) if tail is None else _stored(writer, *tail)


def _stored(writer: str, seq: int, digest: Digest) -> Stored:
    return Stored(writer=writer, next=seq + 1, digest=digest)


def ship(rows: Transaction, batch: RecordBatch) -> Stored:
    """What is there already must be the same and changes nothing.

    Raises RecordsMissing (records before these are not there yet), RecordsInvalid.
    """
    writer, last = batch.writer, batch.first + len(batch.lines) - 1
    head, tail = rows.records.get(writer), rows.shipped.tail(writer)
    after = 0 if tail is None else tail[0] + 1
    if batch.first > after:
        raise RecordsMissing(
            f"records {after} to {batch.first - 1} of {writer} come first", writer=writer, next=after
        )
    if head is None or last > head.seq:
        raise RecordsInvalid(f"no signed head in the log covers record {last} of {writer}")
    found = [_read(writer, batch.first + at, line) for at, line in enumerate(batch.lines)]
    if head.seq <= last and found[head.seq - batch.first][0].digest != head.digest:
        raise RecordsInvalid(f"record {head.seq} of {writer} is not the one that the head in the log signs")
    known = rows.shipped.digests(writer, batch.first - 1, last)
    before = known.get(batch.first - 1) if batch.first else genesis(writer)
    fresh = []
    for record, prev in found:
        if prev != before:
            raise RecordsInvalid(f"record {record.seq} of {writer} does not continue the chain")
        before = record.digest
        if record.seq >= after:
            fresh.append(record)
        elif known.get(record.seq) != record.digest:
            raise RecordsInvalid(f"record {record.seq} of {writer} is there already, and is another")
    rows.shipped.add(fresh)
    if tail is not None and tail[0] > last:
        return _stored(writer, *tail)
    return _stored(writer, last, found[-1][0].digest)


def _read(writer: str, seq: int, line: str) -> tuple[StoredRecord, str]:
    """The record, and the digest of the line before it. Raises RecordsInvalid."""
    try:
        fields: Any = canonical.decode(line)
        data = line.encode()
        if canonical.encode(fields) != data or fields["kind"] != "tenon.record/v1":
            raise InvalidDocument("not canonical, or not a record")
        record = StoredRecord.build(
            {
                "writer": fields["writer"],
                "seq": fields["seq"],
                "digest": Digest.of(data),
                "line": line,
                **{name: fields[name] for name in ("tenant", "id", "event", "at")},
            }
        )
        prev = str(fields["prev"])
    except (InvalidDocument, KeyError, TypeError, UnicodeEncodeError):
        raise RecordsInvalid(f"line {seq} of {writer} is no record") from None
    if (record.writer, record.seq) != (writer, seq):
        raise RecordsInvalid(f"record {record.seq} of {record.writer} stands where {seq} of {writer} should")
    return record, prev
