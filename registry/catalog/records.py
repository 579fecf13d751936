"""Keep the signed heads of request records, so that no record can vanish afterwards."""

from registry.catalog.change import Change
from registry.catalog.errors import RecordHeadRegressed
from registry.catalog.projection import RECORDS_HEAD, signed_payload
from registry.log.entries import Entry
from registry.models import RecordHead
from registry.signing.envelope import Envelope
from registry.signing.types import RECORD_HEAD
from registry.store.transaction import Transaction


def record(change: Change, envelope: Envelope) -> None:
    """The same head twice changes nothing. Raises SignatureInvalid, RecordHeadRegressed."""
    payload = signed_payload(change.rows, envelope, payload_type=RECORD_HEAD, role="router")
    head = RecordHead.parse(payload)
    known = change.rows.records.get(head.writer)
    if known is not None and head.seq <= known.seq:
        if (head.seq, head.digest) == (known.seq, known.digest):
            return
        raise RecordHeadRegressed(
            f"the writer {head.writer} was at record {known.seq} and now signs {head.seq}",
            writer=head.writer,
            seq=known.seq,
        )
    change.write(RECORDS_HEAD, head.writer, {"envelope": envelope.model_dump(mode="json")})


def heads(rows: Transaction) -> tuple[Envelope, ...]:
    """All that were ever signed, oldest first: each of them must be found again in the records."""
    return tuple(Envelope.build(entry.body["envelope"]) for entry in rows.log.of_kind(RECORDS_HEAD))


def covering(rows: Transaction, writer: str, seq: int) -> Entry | None:
    """The oldest entry with a head under whose root the record ``seq`` of ``writer`` stands."""
    for entry in rows.log.about(RECORDS_HEAD, writer):
        head = RecordHead.parse(Envelope.build(entry.body["envelope"]).body())
        if head.first is not None and head.first <= seq <= head.seq:
            return entry
    return None
