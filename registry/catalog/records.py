"""Keep the signed heads of request records, so that no record can vanish afterwards."""

from registry.catalog.change import Change
from registry.catalog.errors import RecordHeadInvalid, RecordHeadRegressed
from registry.catalog.projection import RECORDS_HEAD, signed_payload
from registry.log.entries import Entry
from registry.models import RecordHead
from registry.shipping import KnownHead, genesis
from registry.signing.envelope import Envelope
from registry.signing.types import RECORD_HEAD
from registry.store.transaction import Transaction


def record(change: Change, envelope: Envelope) -> None:
    """The same head twice changes nothing.

    A head says, signed, which record its first one follows; it must be the last one that the log knows. So
    there is one chain under a name: whoever lost it, or uses another's name, cannot say that of its own.
    Raises SignatureInvalid, RecordHeadInvalid, RecordHeadRegressed.
    """
    payload = signed_payload(change.rows, envelope, payload_type=RECORD_HEAD, role="router")
    head = RecordHead.parse(payload)
    before = known(change.rows, head.writer)
    if (head.seq, head.digest) == (before.seq, before.digest):
        return
    if head.first is None or head.after is None:
        raise RecordHeadInvalid(f"a head of {head.writer} does not say which record it follows")
    if (head.first, head.after) != (before.seq + 1, before.digest):
        raise RecordHeadRegressed(
            f"the log knows {head.writer} up to record {before.seq}: its head over {head.first} to "
            f"{head.seq} does not continue that",
            writer=head.writer,
            seq=before.seq,
        )
    change.write(RECORDS_HEAD, head.writer, {"envelope": envelope.model_dump(mode="json")})


def known(rows: Transaction, writer: str) -> KnownHead:
    found = rows.records.get(writer)
    if found is None:
        return KnownHead(writer=writer, seq=-1, digest=genesis(writer))
    return KnownHead(writer=writer, seq=found.seq, digest=found.digest)


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
