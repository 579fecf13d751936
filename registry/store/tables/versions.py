"""Adapter versions and the reports about them."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, or_, tuple_
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
    referenced: Digest | None = None
    """The fingerprint that came after the push."""

    @property
    def fingerprint(self) -> Digest | None:
        """None: no engine could prove that it serves this version."""
        own = self.manifest.fingerprint
        return own.digest if own is not None else self.referenced

    @property
    def blobs(self) -> dict[Digest, str]:
        """All that it needs to be served -> what it is."""
        named = {blob.digest: blob.path for blob in self.manifest.blobs}
        return named if self.referenced is None else named | {self.referenced: "reference"}

    @property
    def name(self) -> AdapterName:
        return AdapterName(self.manifest.tenant, self.manifest.adapter)


@dataclass(frozen=True, slots=True)
class ListedVersion:
    """What a list shows, read without its manifest."""

    digest: Digest
    pushed_at: str
    revoked: bool
    evaluated: bool
    """At least one report is filed."""


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

    def owner(self, version: str) -> AdapterName | None:
        found = select(VersionRow.tenant, VersionRow.adapter).where(VersionRow.digest == version)
        row = self.session.exec(found).first()
        return AdapterName(*row) if row else None

    def owners(self, versions: Collection[str]) -> dict[str, AdapterName]:
        """Those that exist."""
        known: dict[str, AdapterName] = {}
        for batch in _batched(sorted(set(versions))):
            mine = col(VersionRow.digest).in_(batch)
            found = select(VersionRow.digest, VersionRow.tenant, VersionRow.adapter).where(mine)
            known |= {digest: AdapterName(*name) for digest, *name in self.session.exec(found).all()}
        return known

    def listed(
        self, name: AdapterName, *, after: str | None = None, limit: int | None = None
    ) -> tuple[ListedVersion, ...]:
        """Oldest push first; ``after``: a version."""
        mine = (VersionRow.tenant == name.tenant, VersionRow.adapter == name.adapter)
        found = _LISTED.where(*mine).order_by(col(VersionRow.pushed))
        if after is not None:
            # Of this adapter only: else another tenant's digest would tell when it was pushed.
            seen = select(VersionRow.pushed).where(VersionRow.digest == after, *mine)
            found = found.where(col(VersionRow.pushed) > seen.scalar_subquery())
        rows = self.session.exec(found if limit is None else found.limit(limit)).all()
        return self._with_evidence(rows)

    def one_listed(self, version: str) -> ListedVersion | None:
        rows = self.session.exec(_LISTED.where(VersionRow.digest == version)).all()
        return next(iter(self._with_evidence(rows)), None)

    def _with_evidence(self, rows: Sequence[tuple[str, str, bool]]) -> tuple[ListedVersion, ...]:
        """A query of its own: as part of the first one, PostgreSQL reads all reports of the registry."""
        evaluated: set[str] = set()
        for batch in _batched([digest for digest, _, _ in rows]):
            found = select(ReportRow.version).where(col(ReportRow.version).in_(batch)).distinct()
            evaluated.update(self.session.exec(found).all())
        return tuple(
            ListedVersion(Digest(digest), pushed_at, bool(revoked), digest in evaluated)
            for digest, pushed_at, revoked in rows
        )

    def count(self, name: AdapterName) -> int:
        mine = (VersionRow.tenant == name.tenant, VersionRow.adapter == name.adapter)
        return int(self.session.exec(select(func.count()).select_from(VersionRow).where(*mine)).one())

    def names(
        self, tenant: str | None, *, after: AdapterName | None = None, limit: int | None = None
    ) -> tuple[AdapterName, ...]:
        found = select(VersionRow.tenant, VersionRow.adapter).distinct()
        if tenant is not None:
            found = found.where(VersionRow.tenant == tenant)
        if after is not None:
            pair = tuple_(col(VersionRow.tenant), col(VersionRow.adapter))
            found = found.where(pair > (after.tenant, after.adapter))
        found = found.order_by(col(VersionRow.tenant), col(VersionRow.adapter))
        rows = self.session.exec(found if limit is None else found.limit(limit)).all()
        return tuple(AdapterName(owner, adapter) for owner, adapter in rows)

    def counts(self, names: Sequence[AdapterName]) -> dict[AdapterName, int]:
        """How many versions each has."""
        pair = (col(VersionRow.tenant), col(VersionRow.adapter))
        wanted = tuple_(*pair).in_([(name.tenant, name.adapter) for name in names])
        found = select(VersionRow.tenant, VersionRow.adapter, func.count()).where(wanted).group_by(*pair)
        return {AdapterName(tenant, adapter): count for tenant, adapter, count in self.session.exec(found)}

    def all(self) -> tuple[StoredVersion, ...]:
        return _versions(self.session.exec(select(VersionRow).order_by(col(VersionRow.pushed))).all())

    def each(self) -> Iterator[tuple[StoredVersion, int]]:
        """All, a few in memory at a time, with the entry that changed each last."""
        found = select(VersionRow).order_by(col(VersionRow.pushed)).execution_options(yield_per=500)
        for row in self.session.exec(found):
            yield _version(row), row.entry

    def blobs_among(self, tenant: str, digests: Collection[Digest]) -> frozenset[Digest]:
        """Those that a version of the tenant is made of: in one pass over its manifests, however many are
        asked for, and only manifests in whose text one of them stands are parsed."""
        missing, named = set(digests), set[Digest]()
        if not missing:
            return frozenset()
        for batch in _batched(sorted(missing)):
            mine = (VersionRow.tenant == tenant, col(VersionRow.fingerprint).in_(batch))
            named |= {
                Digest(each)
                for each in self.session.exec(select(VersionRow.fingerprint).where(*mine))
                if each
            }
        missing -= named
        if not missing:
            return frozenset(named)
        found = select(VersionRow.digest, VersionRow.manifest).where(VersionRow.tenant == tenant)
        if len(missing) <= _FEW:
            manifest = col(VersionRow.manifest)
            found = found.where(or_(*(manifest.contains(digest, autoescape=True) for digest in missing)))
        with self.session.execute(found, execution_options={"yield_per": 500}) as rows:
            for version, text in rows:
                if not missing:
                    break
                if not missing.isdisjoint(_DIGESTS.findall(text)):
                    blobs = {blob.digest for blob in parsed(Manifest, text, digest=version).blobs}
                    named |= missing & blobs
                    missing -= blobs
        return frozenset(named)

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
                fingerprint=row.fingerprint,
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

    def refer(self, version: str, fingerprint: Digest, *, entry: int) -> None:
        row = self.session.get(VersionRow, version)
        if row is None:
            raise StoreCorrupt(f"there is no version {version} to refer to")
        row.fingerprint, row.entry = str(fingerprint), entry
        self.session.add(row)
        self.session.flush()

    def reports(self, version: str) -> tuple[Report, ...]:
        found = select(ReportRow).where(ReportRow.version == version).order_by(col(ReportRow.entry))
        return tuple(
            parsed(Report, row.document, digest=row.digest) for row in self.session.exec(found).all()
        )

    def reports_filed(self, version: str, *, after: str | None, limit: int | None) -> tuple[int, ...]:
        """The entries that filed them, oldest first; ``after``: a report, of this version only."""
        mine = ReportRow.version == version
        found = select(ReportRow.entry).where(mine).order_by(col(ReportRow.entry))
        if after is not None:
            seen = select(ReportRow.entry).where(ReportRow.digest == after, mine)
            found = found.where(col(ReportRow.entry) > seen.scalar_subquery())
        return tuple(self.session.exec(found if limit is None else found.limit(limit)).all())

    def has_report(self, report: str) -> bool:
        return self.session.get(ReportRow, report) is not None

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


_DIGESTS: Final = re.compile(r"sha256:[0-9a-f]{64}")
_FEW: Final = 8
"""Digests that the database itself looks for, 4 ms each among 5,000 versions; the pass here takes 60 ms."""
_LISTED = select(VersionRow.digest, VersionRow.pushed_at, VersionRow.revoked)


def _batched(items: list[str]) -> Iterator[list[str]]:
    """Far below the 32,766 variables that SQLite takes in one statement."""
    for start in range(0, len(items), 500):
        yield items[start : start + 500]


def _versions(rows: Sequence[VersionRow]) -> tuple[StoredVersion, ...]:
    return tuple(_version(row) for row in rows)


def _version(row: VersionRow) -> StoredVersion:
    return StoredVersion(
        digest=Digest(row.digest),
        manifest=parsed(Manifest, row.manifest, digest=row.digest),
        pushed_at=row.pushed_at,
        revoked=row.revoked,
        referenced=Digest(row.fingerprint) if row.fingerprint is not None else None,
    )
