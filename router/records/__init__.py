"""The request audit trail: hash-chained lines, one fsync a batch, signed heads, offline verification."""

from registry.models import RecordHead
from registry.shipping import genesis
from router.records.heads import Heads
from router.records.log import RecordLog
from router.records.record import Record, Trace, content_digest
from router.records.start import RecordStart
from router.records.unfinished import unfinished
from router.records.verify import RecordFault, verify_records

__all__ = [
    "Heads",
    "Record",
    "RecordFault",
    "RecordHead",
    "RecordLog",
    "RecordStart",
    "Trace",
    "content_digest",
    "genesis",
    "unfinished",
    "verify_records",
]
