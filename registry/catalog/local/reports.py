"""Evidence about versions."""

from registry.catalog import reports, versions
from registry.catalog.local.part import Part
from registry.digests import Digest
from registry.evidence import Report
from registry.signing.envelope import Envelope


class Reports(Part):
    def file_report(self, envelope: Envelope, *, actor: str) -> Digest:
        """Raises SignatureInvalid, ReportInvalid, VersionNotFound."""
        with self._change_by(actor) as change:
            return reports.file(change, envelope)

    def reports(self, version: Digest) -> tuple[Report, ...]:
        """Oldest first. Raises VersionNotFound."""
        with self._database.read() as rows:
            return rows.versions.reports(versions.find(rows, version).digest)

    def report_envelopes(
        self, version: Digest, *, after: Digest | None = None, limit: int | None = None
    ) -> tuple[Envelope, ...]:
        """The same as they were signed; ``after``: the digest of one. Raises VersionNotFound."""
        with self._database.read() as rows:
            return reports.envelopes(rows, versions.find(rows, version).digest, after=after, limit=limit)
