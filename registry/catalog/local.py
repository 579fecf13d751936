"""The catalog of this machine: SQLite rows, blobs beside them, a signed log over both."""

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from registry.catalog import (
    aliases,
    bases,
    engines,
    keys,
    policies,
    records,
    reports,
    signers,
    tenants,
    versions,
)
from registry.catalog.aliases import AliasMove
from registry.catalog.audit import audit
from registry.catalog.change import changing
from registry.catalog.errors import LogTruncated
from registry.catalog.export import export
from registry.catalog.feed import snapshot
from registry.catalog.routes import replace as replace_routes
from registry.catalog.versions import VersionSummary
from registry.clock import Clock
from registry.contract import Contract
from registry.digests import Digest
from registry.errors import InvalidInput, VersionRevoked
from registry.evidence import GatePolicy, Report, Verdict
from registry.fingerprint import Fingerprint
from registry.log.entries import Entry
from registry.log.ledger import root_of
from registry.log.verify import Fault
from registry.manifests import Manifest, Provenance
from registry.models import (
    AliasState,
    Base,
    EngineState,
    Key,
    Policy,
    PublicKey,
    Role,
    Route,
    Snapshot,
    Tenant,
)
from registry.names import LIVE, AdapterName, Ref
from registry.ports import Blobs
from registry.signing.envelope import Envelope
from registry.signing.keys import Signer
from registry.store.database import Database

MAX_PAGE = 10_000


class LocalCatalog:
    """Everything that can be asked of and done to a registry. Safe to share between threads, and between
    processes by opening the same database.

    Every method that takes ``actor`` is one transaction: the change and its log entry, or an error and
    nothing.
    """

    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        signer: Signer,
        clock: Clock,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
        max_rank: int = 64,
    ) -> None:
        """Raises WorkspaceNotFound or SchemaOutdated; ``signer`` must have the role ``log``."""
        if signer.role != "log":
            raise InvalidInput(f"the catalog signs heads with a log key, not with a {signer.role} key")
        database.check()
        self._database = database
        self._blobs = blobs
        self._log_key = signer.public
        self._change_by = changing(database, signer=signer, clock=clock)
        self._entropy = entropy
        self._max_rank = max_rank
        self._newest: Snapshot | None = None

    # Tenants, keys, signers

    def create_tenant(self, tenant: Tenant, *, actor: str) -> None:
        """Raises AlreadyExists."""
        with self._change_by(actor) as change:
            tenants.create(change, tenant)

    def tenants(self) -> tuple[Tenant, ...]:
        with self._database.read() as rows:
            return rows.tenants.all()

    def issue_key(self, tenant: str, *, role: Role, actor: str) -> tuple[Key, str]:
        """(the key, its secret: shown now and never again). Raises TenantNotFound."""
        with self._change_by(actor) as change:
            return keys.issue(change, tenant, role=role, entropy=self._entropy)

    def revoke_key(self, key_id: str, *, actor: str) -> None:
        """Raises KeyNotFound."""
        with self._change_by(actor) as change:
            keys.revoke(change, key_id)

    def keys(self, tenant: str) -> tuple[Key, ...]:
        """Raises TenantNotFound."""
        with self._database.read() as rows:
            tenants.require(rows, tenant)
            return rows.keys.of(tenant)

    def trust(self, key: PublicKey, *, actor: str) -> None:
        """Raises SignerInvalid, AlreadyExists (the same key with another role)."""
        with self._change_by(actor) as change:
            signers.trust(change, key)

    def trusted(self) -> dict[str, PublicKey]:
        """Key id -> key."""
        with self._database.read() as rows:
            return rows.signers.all()

    # Bases, policies, routes

    def register_base(self, base: Base, contract: Contract, *, actor: str) -> Digest:
        """Raises ContractInvalid."""
        with self._change_by(actor) as change:
            return bases.register(change, base, contract)

    def base(self, ref: str) -> tuple[Digest, Base, Contract]:
        """By digest, or by name: the one registered last. Raises BaseNotFound."""
        with self._database.read() as rows:
            return bases.find(rows, ref)

    def publish_policy(self, policy: Policy, *, actor: str) -> Digest:
        """Raises UnsupportedSchema, TenantNotFound."""
        with self._change_by(actor) as change:
            return policies.publish(change, policy)

    def policy(self, digest: Digest) -> Policy:
        """Raises PolicyNotFound."""
        with self._database.read() as rows:
            return policies.get(rows, digest)

    def replace_routes(self, tenant: str, routes: Sequence[Route], *, actor: str) -> None:
        """All of them or none. Raises TenantNotFound, PolicyNotFound, RouteInvalid."""
        with self._change_by(actor) as change:
            replace_routes(change, tenant, routes)

    def routes(self, tenant: str) -> tuple[Route, ...]:
        """Raises TenantNotFound."""
        with self._database.read() as rows:
            tenants.require(rows, tenant)
            return rows.routes.of(tenant)

    # Versions

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
        return versions.push(
            name,
            folder,
            base=base,
            fingerprint=fingerprint,
            provenance=provenance,
            max_rank=self._max_rank,
            actor=actor,
            database=self._database,
            blobs=self._blobs,
            change_by=self._change_by,
        )

    def manifest(self, version: Digest) -> Manifest:
        """Raises VersionNotFound."""
        with self._database.read() as rows:
            return versions.find(rows, version).manifest

    def versions(self, name: AdapterName) -> tuple[VersionSummary, ...]:
        """Oldest push first."""
        with self._database.read() as rows:
            return versions.summaries(rows, name)

    def adapters(self, tenant: str | None = None) -> tuple[AdapterName, ...]:
        """Adapters with at least one version; of all tenants when none is named."""
        with self._database.read() as rows:
            return rows.versions.names(tenant)

    def resolve(self, ref: Ref) -> Digest:
        """Raises AliasNotFound, VersionNotFound."""
        with self._database.read() as rows:
            return versions.resolve(rows, ref)

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
            versions.revoke(change, version, reason=reason)

    # Evidence, gates, aliases

    def file_report(self, envelope: Envelope, *, actor: str) -> Digest:
        """Raises SignatureInvalid, ReportInvalid, VersionNotFound."""
        with self._change_by(actor) as change:
            return reports.file(change, envelope)

    def reports(self, version: Digest) -> tuple[Report, ...]:
        """Oldest first. Raises VersionNotFound."""
        with self._database.read() as rows:
            return rows.versions.reports(versions.find(rows, version).digest)

    def promote(
        self,
        name: AdapterName,
        version: Digest,
        *,
        gate: GatePolicy,
        alias: str = LIVE,
        expect_epoch: int | None = None,
        actor: str,
    ) -> Verdict:
        """See :func:`registry.catalog.aliases.promote`."""
        with self._change_by(actor) as change:
            return aliases.promote(change, name, version, gate=gate, alias=alias, expect_epoch=expect_epoch)

    def rollback(self, name: AdapterName, *, alias: str = LIVE, actor: str) -> AliasState:
        """Raises AliasNotFound, NothingToRollBack."""
        with self._change_by(actor) as change:
            return aliases.roll_back(change, name, alias=alias)

    def history(self, name: AdapterName, alias: str = LIVE) -> tuple[AliasMove, ...]:
        with self._database.read() as rows:
            return aliases.history(rows, name, alias)

    # Engines and records

    def announce(self, state: EngineState, *, actor: str) -> None:
        """Raises BaseNotFound, EngineReplaced."""
        with self._database.read() as rows:  # a heartbeat must not queue with the writers
            if rows.engines.get(state.engine) == state:
                return
        with self._change_by(actor) as change:
            engines.announce(change, state)

    def attest(self, envelope: Envelope, *, actor: str) -> Digest:
        """Raises SignatureInvalid, EngineNotFound, EngineReplaced, VersionNotFound, VersionRevoked,
        AttestationInvalid."""
        with self._change_by(actor) as change:
            return engines.attest(change, envelope)

    def record_head(self, envelope: Envelope, *, actor: str) -> None:
        """Raises SignatureInvalid, RecordHeadRegressed."""
        with self._change_by(actor) as change:
            records.record(change, envelope)

    def record_heads(self) -> tuple[Envelope, ...]:
        """All that were accepted, oldest first."""
        with self._database.read() as rows:
            return records.heads(rows)

    # Feed and log

    def snapshot(self) -> Snapshot:
        with self._database.read() as rows:
            known, frontier = self._newest, rows.log.frontier()
            if known is None or (known.size, known.root) != (frontier.size, root_of(frontier)):
                known = self._newest = snapshot(rows)
            return known

    def feed(self, after: int) -> Snapshot | None:
        """The newest snapshot, or None when the log has exactly ``after`` entries. Raises LogTruncated."""
        with self._database.read() as rows:
            size = rows.log.size()
        if size < after:
            raise LogTruncated(f"the reader has seen {after} entries and the log has {size}")
        return self.snapshot() if size > after else None

    def entries(self, start: int = 0, limit: int = 100) -> tuple[Entry, ...]:
        if start < 0 or not 0 <= limit <= MAX_PAGE:
            raise InvalidInput(f"entries start at 0 and come at most {MAX_PAGE} at a time")
        with self._database.read() as rows:
            return rows.log.entries(start, limit)

    def verify(self, *, blobs: bool = False) -> list[Fault]:
        """Every fault of the log, its heads, the tables and (on request) the blobs; empty means intact."""
        with self._database.read() as rows:
            return audit(rows, log_key=self._log_key, blobs=self._blobs if blobs else None)
