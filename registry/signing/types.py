"""DSSE payload types: what a signature was made for, so that it cannot be used for anything else."""

from typing import Final

REPORT: Final = "application/vnd.tenon.report+json"
ANNOUNCEMENT: Final = "application/vnd.tenon.announcement+json"
WITHDRAWAL: Final = "application/vnd.tenon.withdrawal+json"
ATTESTATION: Final = "application/vnd.tenon.attestation+json"
LOG_HEAD: Final = "application/vnd.tenon.log-head+json"
RECORD_HEAD: Final = "application/vnd.tenon.record-head+json"
RECORD_START: Final = "application/vnd.tenon.record-start+json"
RECEIPT: Final = "application/vnd.tenon.receipt+json"
MANIFEST: Final = "application/vnd.tenon.manifest+json"
REFERENCE: Final = "application/vnd.tenon.reference+json"
RELEASE: Final = "application/vnd.tenon.release+json"
