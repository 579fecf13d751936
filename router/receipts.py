"""receipt: an outcome line with a signature, which anybody who trusts the router's key can check offline."""

import base64
import binascii
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from registry.canonical import Document
from registry.digests import Digest
from registry.errors import InvalidDocument, ReceiptInvalid
from registry.models import PublicKey
from registry.signing.envelope import Envelope, verify
from registry.signing.keys import Signer
from registry.signing.types import RECEIPT
from router.records.record import Record


class Statement(Document):
    """What is signed: that this line stands at this place of this chain."""

    kind: Literal["tenon.receipt-statement/v1"] = "tenon.receipt-statement/v1"
    writer: str
    seq: int = Field(ge=0)
    record: Digest


class Receipt(Document):
    kind: Literal["tenon.receipt/v1"] = "tenon.receipt/v1"
    record: str
    """Base64 of the exact line, without its newline."""
    envelope: Envelope


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
