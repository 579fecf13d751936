"""receipt: an outcome line with a signature, which anybody who trusts the router's key can check offline."""

import base64
import binascii
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from registry.canonical import Document, later
from registry.digests import Digest
from registry.errors import InvalidDocument, ReceiptInvalid
from registry.log.entries import Entry, Head
from registry.log.merkle import leaf_hash
from registry.log.proofs import verify_inclusion
from registry.log.statements import raw
from registry.models import PublicKey, RecordHead
from registry.signing.envelope import Envelope, verify
from registry.signing.keys import Signer
from registry.signing.types import LOG_HEAD, RECEIPT, RECORD_HEAD
from router.records.record import Record


class Statement(Document):
    """What is signed: that this line stands at this place of this chain."""

    kind: Literal["tenon.receipt-statement/v1"] = "tenon.receipt-statement/v1"
    writer: str
    seq: int = Field(ge=0)
    record: Digest


class Sealing(Document):
    """That the registry's log commits to the record: nobody can take it back, not even who holds the router's
    key. Shows no other record: of those there are only hashes."""

    entry: str
    """Canonical bytes, as text, of the log entry that holds the signed head of the record's chain."""
    path: tuple[Digest, ...]
    """From the record's digest to the root in that head (RFC 9162, 2.1.3.2)."""
    inclusion: tuple[Digest, ...]
    """From the entry to the root of the log in ``log_head``."""
    log_head: Envelope


class Receipt(Document):
    kind: Literal["tenon.receipt/v1"] = "tenon.receipt/v1"
    record: str
    """Base64 of the exact line, without its newline."""
    envelope: Envelope
    sealing: Sealing | None = later(None)
    """Added afterwards (``tenon receipt prove``): a head covers a record some seconds after its answer."""


def issue(line: bytes, signer: Signer) -> Receipt:
    """Raises InvalidDocument when ``line`` is no record."""
    record = Record.parse(line)
    statement = Statement(writer=record.writer, seq=record.seq, record=Digest.of(line))
    return Receipt(
        record=base64.b64encode(line).decode("ascii"), envelope=signer.sign(RECEIPT, statement.canonical())
    )


def verify_receipt(data: bytes, trusted: Mapping[str, PublicKey]) -> Record:
    """The record, proven to be what the router signed.

    ``trusted``: key id -> key. Raises SignatureInvalid when no trusted router key signed it, ReceiptInvalid
    when the parts do not fit together; the sentence says which part.
    """
    try:
        receipt = Receipt.parse(data)
    except InvalidDocument as error:
        raise ReceiptInvalid(f"not a receipt: {error.message}") from None
    payload = verify(receipt.envelope, payload_type=RECEIPT, trusted=trusted, role="router")
    try:
        statement = Statement.parse(payload)
    except InvalidDocument as error:
        raise ReceiptInvalid(f"the signed statement is not one of a receipt: {error.message}") from None
    try:
        line = base64.b64decode(receipt.record, validate=True)
    except (binascii.Error, ValueError):
        raise ReceiptInvalid("the record is not valid base64") from None
    found = Digest.of(line)
    if found != statement.record:
        raise ReceiptInvalid(f"the record was changed: signed {statement.record}, found {found}")
    try:
        record = Record.parse(line)
    except InvalidDocument as error:
        raise ReceiptInvalid(f"the signed line is not a record: {error.message}") from None
    if (record.writer, record.seq) != (statement.writer, statement.seq):
        raise ReceiptInvalid("the record names another place in the chain than the signed statement")
    return record


def verify_sealing(data: bytes, trusted: Mapping[str, PublicKey]) -> Head | None:
    """The signed head of the registry's log that commits to the record; None: the receipt does not say.

    Raises what :func:`verify_receipt` raises.
    """
    record = verify_receipt(data, trusted)
    receipt = Receipt.parse(data)
    sealing = receipt.sealing
    if sealing is None:
        return None
    try:
        entry = Entry.parse(sealing.entry)
        envelope = Envelope.build(entry.body["envelope"])
        head = RecordHead.parse(verify(envelope, payload_type=RECORD_HEAD, trusted=trusted, role="router"))
        log = Head.parse(verify(sealing.log_head, payload_type=LOG_HEAD, trusted=trusted, role="log"))
    except (InvalidDocument, KeyError, TypeError) as error:
        raise ReceiptInvalid(f"the sealing is none: {error}") from None
    if (
        entry.kind != "records.head"
        or head.writer != record.writer
        or head.root is None
        or head.first is None
    ):
        raise ReceiptInvalid("the log entry holds no head of this record's chain")
    if not verify_inclusion(  # which refuses an index outside of the head's records, too
        leaf=leaf_hash(raw(Digest.of(base64.b64decode(receipt.record)))),
        index=record.seq - head.first,
        size=head.seq - head.first + 1,
        proof=[raw(node) for node in sealing.path],
        root=raw(head.root),
    ):
        raise ReceiptInvalid(f"the head of seq {head.seq} does not cover this record")
    if not verify_inclusion(
        leaf=leaf_hash(sealing.entry.encode()),
        index=entry.index,
        size=log.size,
        proof=[raw(node) for node in sealing.inclusion],
        root=raw(log.root),
    ):
        raise ReceiptInvalid(f"entry {entry.index} is not in the log of {log.size} entries")
    return log
