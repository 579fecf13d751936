"""Versions of adapters: what they are made of, and who vouches for them."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from io import BytesIO
from pathlib import Path

from registry.blobs.uploads import Uploads
from registry.catalog import references, revocation, versions
from registry.catalog.export import export
from registry.catalog.garbage import GRACE, Collection, collect
from registry.catalog.local.part import Part
from registry.catalog.versions import VersionSummary
from registry.clock import Clock
from registry.digests import Digest
from registry.errors import BlobNotFound, VersionRevoked
from registry.fingerprint import Fingerprint
from registry.manifests import Manifest, Provenance
from registry.models import AliasState
from registry.names import AdapterName, Ref
from registry.ports import BlobStore
from registry.signing.envelope import Envelope


class Versions(Part):
    def push(
        self,
        name: AdapterName,
        folder: Path,
        *,
        base: Digest,
        fingerprint: Fingerprint | None,
        provenance: Provenance,
        actor: str,
    ) -> Digest:
        """Idempotent for the same bytes and provenance; nothing of a refused adapter is stored.

        Raises TenantNotFound, BaseNotFound, FingerprintInvalid, VersionRevoked, the leaves of IntakeRefused.
        """
        return self._intake.push(
            name, folder, base=base, fingerprint=fingerprint, provenance=provenance, actor=actor
        )

    def publish(
        self,
        name: AdapterName,
        files: Mapping[str, Digest],
        *,
        base: Digest,
        fingerprint: Fingerprint | None,
        provenance: Provenance,
        actor: str,
        contents: Mapping[str, bytes] | None = None,
    ) -> Digest:
        """``push`` for files whose bytes were uploaded before: path -> blob. ``contents``: the bytes of those
        that were not. Raises BlobNotFound, BlobCorrupt and UploadMismatch too."""
        return self._intake.publish(
            name,
            files,
            base=base,
            fingerprint=fingerprint,
            provenance=provenance,
            actor=actor,
            contents=contents or {},
        )

    def sign_version(self, version: Digest, envelope: Envelope, *, actor: str) -> None:
        """Raises VersionNotFound, VersionRevoked, SignatureInvalid."""
        with self._change_by(actor) as change:
            versions.sign(change, version, envelope)

    def signatures(self, version: Digest) -> tuple[Envelope, ...]:
        """Oldest first. Raises VersionNotFound."""
        with self._database.read() as rows:
            return rows.signatures.of(versions.find(rows, version).digest)

    def file_reference(self, envelope: Envelope, fingerprint: Fingerprint, *, actor: str) -> Digest:
        """The version that from now on has this fingerprint. See :func:`registry.catalog.references.check`
        for what it raises."""
        with self._database.read() as rows:
            references.check(rows, envelope, fingerprint)
        self._blobs.put(BytesIO(fingerprint.canonical()))
        with self._change_by(actor) as change:
            return references.file(change, envelope, fingerprint)

    def fingerprint(self, version: Digest) -> Fingerprint | None:
        """Pushed with the version or filed later; None: there is none. Raises VersionNotFound, BlobNotFound,
        BlobCorrupt."""
        digest = self.fingerprint_digest(version)
        return None if digest is None else Fingerprint.parse(self._blobs.read(digest))

    def fingerprint_digest(self, version: Digest) -> Digest | None:
        """Raises VersionNotFound."""
        with self._database.read() as rows:
            return versions.find(rows, version).fingerprint

    def manifest(self, version: Digest) -> Manifest:
        """Raises VersionNotFound."""
        with self._database.read() as rows:
            return versions.find(rows, version).manifest

    def named_blobs(self, tenant: str, digests: Iterable[Digest]) -> frozenset[Digest]:
        """Those of ``digests`` that a version of this tenant is made of."""
        with self._database.read() as rows:
            return rows.versions.blobs_among(tenant, frozenset(digests))

    def collect(
        self,
        blobs: BlobStore,
        uploads: Uploads,
        *,
        clock: Clock,
        grace: timedelta = GRACE,
        delete: bool = False,
    ) -> Collection:
        """See :func:`registry.catalog.garbage.collect`; no entry of the log tells of it."""
        return collect(self._database, blobs, uploads, clock=clock, grace=grace, delete=delete)

    def read_blob(self, tenant: str, digest: Digest) -> bytes:
        """A small document that a version of the tenant is made of. Raises BlobNotFound, BlobCorrupt."""
        if not self.named_blobs(tenant, [digest]):
            raise BlobNotFound(f"no blob {digest.short}")
        return self._blobs.read(digest)

    def version(self, version: Digest) -> VersionSummary:
        """Raises VersionNotFound."""
        with self._database.read() as rows:
            return versions.summary(rows, version, now=self._now(rows))

    def versions(
        self, name: AdapterName, *, after: Digest | None = None, limit: int | None = None
    ) -> tuple[VersionSummary, ...]:
        """Oldest push first."""
        with self._database.read() as rows:
            return versions.summaries(rows, name, now=self._now(rows), after=after, limit=limit)

    def version_count(self, name: AdapterName) -> int:
        with self._database.read() as rows:
            return rows.versions.count(name)

    def adapters(
        self, tenant: str | None = None, *, after: AdapterName | None = None, limit: int | None = None
    ) -> tuple[AdapterName, ...]:
        """Adapters with at least one version; of all tenants when none is named."""
        with self._database.read() as rows:
            return rows.versions.names(tenant, after=after, limit=limit)

    def shown_adapters(
        self, tenant: str | None, *, after: AdapterName | None = None, limit: int | None = None
    ) -> tuple[tuple[AdapterName, tuple[AliasState, ...], int], ...]:
        """:meth:`adapters` with the aliases of each and how many versions it has, in three queries."""
        with self._database.read() as rows:
            names = rows.versions.names(tenant, after=after, limit=limit)
            counts, aliases = rows.versions.counts(names), rows.aliases.of_each(names)
        return tuple((name, aliases[name], counts[name]) for name in names)

    def resolve(self, ref: Ref) -> Digest:
        """Raises AliasNotFound, VersionNotFound."""
        with self._database.read() as rows:
            return versions.resolve(rows, ref, now=self._now(rows))

    def export(self, version: Digest, folder: Path) -> Manifest:
        """Write the adapter's files to ``folder``, checked, all or none.

        Raises VersionNotFound, VersionRevoked, AlreadyExists, BlobNotFound, BlobCorrupt.
        """
        with self._database.read() as rows:
            found = versions.find(rows, version)
        if found.revoked:
            raise VersionRevoked(f"{version} was revoked")
        export(found.manifest, folder, blobs=self._blobs)
        return found.manifest

    def revoke(self, version: Digest, *, reason: str, actor: str) -> None:
        """No engine keeps a slot of it and no alias that points at it is served. Raises VersionNotFound."""
        with self._change_by(actor) as change:
            revocation.revoke(change, version, reason=reason)
