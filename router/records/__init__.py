"""The request audit trail: hash-chained lines, group-committed, with signed heads and offline verification."""

from router.records.heads import Heads, RecordHead
from router.records.log import RecordLog
from router.records.record import Record, Trace, content_digest, genesis
from router.records.verify import RecordFault, verify_records

__all__ = [
    "Heads",
    "Record",
    "RecordFault",
    "RecordHead",
    "RecordLog",
    "Trace",
    "content_digest",
    "genesis",
    "verify_records",
]
