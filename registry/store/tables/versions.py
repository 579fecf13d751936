"""Adapter versions and the reports about them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.digests import Digest
from registry.evidence import Report
from registry.manifests import Manifest
from registry.models import VersionState
from registry.names import AdapterName
from registry.store.errors import StoreCorrupt
from registry.store.rows import ReportRow, VersionRow
from registry.store.tables.parsing import built, parsed, text_of


@dataclass(frozen=True, slots=True)
class StoredVersion:
    digest: Digest
    manifest: Manifest
    pushed_at: str
    revoked: bool

    @property
    def name(self) -> AdapterName:
        return AdapterName(self.manifest.tenant, self.manifest.adapter)


@dataclass(frozen=True, slots=True)
class VersionTable:
    session: Session

    def get(self, version: str) -> StoredVersion | None:
        row = self.session.get(VersionRow, version)
        return _version(row) if row else None

    def of(self, name: AdapterName) -> tuple[StoredVersion, ...]:
        """Oldest push first."""
        mine = (VersionRow.tenant == name.tenant, VersionRow.adapter == name.adapter)
        return _versions(
            self.session.exec(select(VersionRow).where(*mine).order_by(col(VersionRow.pushed))).all()
        )

    def names(self, tenant: str | None) -> tuple[AdapterName, ...]:
        found = select(VersionRow.tenant, VersionRow.adapter).distinct()
        if tenant is not None:
            found = found.where(VersionRow.tenant == tenant)
        rows = self.session.exec(found.order_by(col(VersionRow.tenant), col(VersionRow.adapter))).all()
        return tuple(AdapterName(owner, adapter) for owner, adapter in rows)

    def all(self) -> tuple[StoredVersion, ...]:
        return _versions(self.session.exec(select(VersionRow).order_by(col(VersionRow.pushed))).all())

    def states(self) -> tuple[VersionState, ...]:
        rows = self.session.exec(select(VersionRow).order_by(col(VersionRow.pushed))).all()
        return tuple(
            built(
                VersionState,
                version=row.digest,
                tenant=row.tenant,
                adapter=row.adapter,
                base=row.base,
                rank=row.rank,
                revoked=row.revoked,
            )
            for row in rows
        )

    def add(self, manifest: Manifest, *, at: str, entry: int) -> None:
        self.session.add(
            VersionRow(
                digest=str(manifest.identity()),
                tenant=manifest.tenant,
                adapter=manifest.adapter,
                base=str(manifest.base),
                rank=manifest.lora.rank,
                manifest=text_of(manifest),
                pushed=entry,
                pushed_at=at,
                revoked=False,
                entry=entry,
            )
        )
        self.session.flush()

    def revoke(self, version: str, *, entry: int) -> None:
        row = self.session.get(VersionRow, version)
        if row is None:
            raise StoreCorrupt(f"there is no version {version} to revoke")
        row.revoked, row.entry = True, entry
        self.session.add(row)
        self.session.flush()

    def reports(self, version: str) -> tuple[Report, ...]:
        found = select(ReportRow).where(ReportRow.version == version).order_by(col(ReportRow.entry))
        return tuple(
            parsed(Report, row.document, digest=row.digest) for row in self.session.exec(found).all()
        )

    def has_report(self, report: str) -> bool:
        return self.session.get(ReportRow, report) is not None

    def evaluated(self) -> frozenset[str]:
        """Versions with at least one report."""
        return frozenset(self.session.exec(select(ReportRow.version).distinct()).all())

    def add_report(self, report: Report, *, entry: int) -> None:
        self.session.add(
            ReportRow(
                digest=str(report.identity()),
                version=str(report.version),
                document=text_of(report),
                entry=entry,
            )
        )
        self.session.flush()


def _versions(rows: Sequence[VersionRow]) -> tuple[StoredVersion, ...]:
    return tuple(_version(row) for row in rows)


def _version(row: VersionRow) -> StoredVersion:
    return StoredVersion(
        digest=Digest(row.digest),
        manifest=parsed(Manifest, row.manifest, digest=row.digest),
        pushed_at=row.pushed_at,
        revoked=row.revoked,
    )
