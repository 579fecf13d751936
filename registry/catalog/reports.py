"""File signed reports about versions."""

from registry.catalog import versions
from registry.catalog.change import Change
from registry.catalog.errors import ReportInvalid
from registry.catalog.projection import REPORT_FILED, signed_payload
from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.evidence import Report
from registry.names import AdapterName
from registry.signing.envelope import Envelope
from registry.signing.types import REPORT
from registry.store.transaction import Transaction


def file(change: Change, envelope: Envelope) -> Digest:
    """The report's digest; filing the same report twice changes nothing.

    Raises SignatureInvalid, ReportInvalid, VersionNotFound.
    """
    payload = signed_payload(change.rows, envelope, payload_type=REPORT, role="trainer")
    report = Report.parse(payload)
    try:
        canonical = report.canonical()
    except InvalidDocument as error:
        raise ReportInvalid(f"a figure is not a number: {error.message}") from None
    if payload != canonical:
        # A verdict names reports by the digest of their canonical bytes: so these must be what was signed.
        raise ReportInvalid("a report is signed in its canonical form, and this one was not")
    found = versions.of_adapter(change.rows, AdapterName(report.tenant, report.adapter), report.version)
    if report.base != found.manifest.base:
        raise ReportInvalid("the report was made on another base")
    digest = report.identity()
    if not change.rows.versions.has_report(digest):
        body = {"version": report.version, "envelope": envelope.model_dump(mode="json")}
        change.write(REPORT_FILED, digest, body)
    return digest


def envelopes(
    rows: Transaction, version: Digest, *, after: Digest | None = None, limit: int | None = None
) -> tuple[Envelope, ...]:
    """The signed reports about a version, oldest first, as the log has them; ``after``: a report."""
    filed = rows.versions.reports_filed(version, after=after, limit=limit)
    return tuple(Envelope.build(entry.body["envelope"]) for entry in rows.log.at(filed))
