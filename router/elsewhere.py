"""Receipts of answers that another router gave: clients see one address and know of no routers."""

import base64

from registry.errors import InvalidDocument
from router.errors import ReceiptNotFound, ReceiptUnavailable
from router.headers import Headers
from router.ports import Peers
from router.receipts import Receipt
from router.records.record import Record

ASKED_BY_PEER = "x-tenon-peer"
"""On a question from one router to another, which then asks nobody else."""
_WHO = frozenset({b"authorization", b"x-tenant-id"})
"""All that decides who asks; the other router authenticates by it as if it were asked directly."""


async def elsewhere(peers: Peers | None, record: str, tenant: str, headers: Headers) -> bytes:
    """Raises ReceiptNotFound, ReceiptUnavailable. Both take as long whoever's the record is."""
    if peers is None or headers.every(ASKED_BY_PEER):
        raise ReceiptNotFound
    found = await peers.receipt(record, [header for header in headers.raw if header[0] in _WHO])
    if found is None:
        raise ReceiptNotFound
    try:
        line = Record.parse(base64.b64decode(Receipt.parse(found).record, validate=True))
    except (InvalidDocument, ValueError):
        raise ReceiptUnavailable from None
    if (line.id, line.tenant) != (record, tenant):  # whatever answers there: nobody is shown another's
        raise ReceiptUnavailable
    return found
