"""The catalog that holds everything itself: rows, blobs beside them, a signed log over both."""

import copy
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from io import BytesIO
from pathlib import Path

from registry.blobs.uploads import Uploads
from registry.catalog import (
    aliases,
    bases,
    counts,
    engines,
    feed,
    keys,
    log,
    policies,
    preparations,
    proposals,
    protections,
    records,
    references,
    reports,
    revocation,
    shipped,
    signers,
    tenants,
    usage,
    versions,
)
from registry.catalog import routes as routing
from registry.catalog.aliases import AliasMove
from registry.catalog.answers import Answers
from registry.catalog.audit import Progress, audit, no_progress
from registry.catalog.change import Change, changing
from registry.catalog.export import export
from registry.catalog.fleet import Fleet, fleet, strengths
from registry.catalog.garbage import GRACE, Collection, collect
from registry.catalog.intake import Intake
from registry.catalog.isolation import isolate, state_of
from registry.catalog.moves import Move
from registry.catalog.readiness import Following
from registry.catalog.routes import RoutingMove
from registry.catalog.versions import VersionSummary
from registry.clock import Clock, RatchetClock, stamp
from registry.contract import Contract
from registry.counting import CountAnswer, CountReport
from registry.digests import Digest
from registry.errors import BlobNotFound, InvalidInput, VersionNotFound, VersionRevoked
from registry.evidence import GatePolicy, Report, Verdict
from registry.feed import Delta, Position, Snapshot
from registry.fingerprint import Fingerprint
from registry.log.entries import Entry
from registry.log.handovers import KeyHistory
from registry.log.statements import Consistency, Inclusion
from registry.log.verify import Fault
from registry.manifests import Manifest, Provenance
from registry.models import (
    AliasState,
    Base,
    DeclaredHeader,
    EngineState,
    Isolation,
    Key,
    Policy,
    PublicKey,
    Quota,
    Role,
    Route,
    Routing,
    Slot,
    Tenant,
    Withdrawal,
)
from registry.names import LIVE, AdapterName, Ref
from registry.ports import Blobs, BlobStore
from registry.promotions import Preparation, Proposal, Protection, Readiness
from registry.routing.errors import RoutingChanged
from registry.routing.proof import Proof
from registry.shipping import RecordBatch, Stored
from registry.signing.envelope import Envelope
from registry.signing.keys import Signer
from registry.store.port import Store
from registry.store.transaction import Transaction
from registry.usage import By, UsageBatch, UsageCounted, UsageLine, UsageSum

MAX_PAGE = 10_000
_NO_GATE = GatePolicy(name="none", rules=())
_PROOFS = 3
"""Attempts to prove rules before something that they lead to changes."""


class LocalCatalog:
    """Everything that can be asked of and done to a registry. Safe to share between threads, and between
    processes by opening the same database.

    Every method that takes ``actor`` is one transaction: the change and its log entry, or an error and
    nothing.
    """

    def __init__(
        self,
        *,
        database: Store,
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
        self._signer = signer
        self._log_key = signer.public
        self._clock = RatchetClock(clock)
        self._write = changing(database, signer=signer, clock=self._clock, entropy=entropy)
        self._entropy = entropy
        self._intake = Intake(database, blobs, self._change_by, max_rank)
        self._following = Following(database, self._clock)

    def within(self, tenant: str) -> "LocalCatalog":
        """The same catalog, where every transaction sees one tenant's rows only (PostgreSQL; SQLite has no
        such wall). Costs nothing: make it for each request. Raises InvalidName."""
        scoped = copy.copy(self)
        scoped._database = self._database.within(tenant)
        scoped._write = changing(
            scoped._database, signer=self._signer, clock=self._clock, entropy=self._entropy
        )
        scoped._intake = Intake(scoped._database, self._blobs, scoped._change_by, self._intake.max_rank)
        return scoped

    def _change_by(self, actor: str) -> AbstractContextManager[Change]:
        return self._write(actor)  # whose signer a rotation replaces

    def _now(self, rows: Transaction) -> str:
        """As a change would see it: a clock that was set back revives nothing."""
        return max(stamp(self._clock.now()), rows.log.last_at())

    # Tenants, keys, signers

    def create_tenant(self, tenant: Tenant, *, actor: str) -> None:
        """Raises AlreadyExists."""
        with self._change_by(actor) as change:
            tenants.create(change, tenant)

    def tenant(self, tenant: str) -> Tenant:
        """Raises TenantNotFound."""
        with self._database.read() as rows:
            return tenants.get(rows, tenant)

    def tenants(self, *, after: str | None = None, limit: int | None = None) -> tuple[Tenant, ...]:
        """By id; ``after`` and ``limit`` are those of every list: the last one seen, and how many."""
        with self._database.read() as rows:
            return rows.tenants.page(after, limit)

    def suspend_tenant(self, tenant: str, *, reason: str, actor: str, expect: Digest | None = None) -> None:
        """None of its keys opens anything until it is resumed. ``expect``: the identity of the tenant that
        the caller saw, as in the methods below. Raises TenantNotFound, TenantMoved."""
        with self._change_by(actor) as change:
            tenants.check_unchanged(change, tenant, expect)
            tenants.suspend(change, tenant, reason=reason)

    def resume_tenant(self, tenant: str, *, actor: str, expect: Digest | None = None) -> None:
        """Raises TenantNotFound."""
        with self._change_by(actor) as change:
            tenants.check_unchanged(change, tenant, expect)
            tenants.resume(change, tenant)

    def set_quota(self, tenant: str, quota: Quota, *, actor: str, expect: Digest | None = None) -> None:
        """Raises TenantNotFound."""
        with self._change_by(actor) as change:
            tenants.check_unchanged(change, tenant, expect)
            tenants.set_quota(change, tenant, quota)

    def rename_tenant(
        self, tenant: str, display_name: str, *, actor: str, expect: Digest | None = None
    ) -> None:
        """What people see; the id never changes. Raises TenantNotFound, InvalidDocument."""
        with self._change_by(actor) as change:
            tenants.check_unchanged(change, tenant, expect)
            tenants.rename(change, tenant, display_name)

    def isolate_tenant(
        self,
        tenant: str,
        isolation: Isolation,
        *,
        force: bool = False,
        actor: str,
        expect: Digest | None = None,
    ) -> Isolation:
        """Where the tenant's versions live from now on; they move there without a gap. A tenant that is to
        have an engine and is given none gets the one that serves fewest others. Raises TenantNotFound,
        TenantMoved, EngineNotFound, EngineGiven, InvalidInput; EngineNeeded for the last engine that others
        need, unless ``force``."""
        now = self._clock.now()
        with self._write(actor) as change:
            tenants.check_unchanged(change, tenant, expect)
            return isolate(change, tenant, isolation, force=force, now=now)

    def issue_key(
        self,
        tenant: str | None,
        *,
        role: Role,
        label: str = "",
        expires_at: str | None = None,
        actor: str,
    ) -> tuple[Key, str]:
        """(the key, its secret: shown now and never again); ``tenant`` None: a platform admin's.

        Raises TenantNotFound, KeyInvalid, ExpiryInvalid.
        """
        with self._change_by(actor) as change:
            return keys.issue(
                change, tenant, role=role, label=label, expires_at=expires_at, entropy=self._entropy
            )

    def rotate_key(self, key_id: str, *, overlap_seconds: float, actor: str) -> tuple[Key, str]:
        """A key with the same rights; the old one still opens for ``overlap_seconds``.

        Raises KeyNotFound, KeyEnded, KeyInvalid.
        """
        with self._change_by(actor) as change:
            return keys.rotate(change, key_id, overlap_seconds=overlap_seconds, entropy=self._entropy)

    def revoke_key(self, key_id: str, *, actor: str) -> None:
        """Raises KeyNotFound."""
        with self._change_by(actor) as change:
            keys.revoke(change, key_id)

    def limit_key(self, key_id: str, quota: Quota | None, *, actor: str) -> None:
        """What the key may use within its tenant's quota; None: no limits of its own.

        Raises KeyNotFound, KeyEnded, KeyInvalid.
        """
        with self._change_by(actor) as change:
            keys.limit(change, key_id, quota)

    def key(self, key_id: str) -> Key:
        """Raises KeyNotFound."""
        with self._database.read() as rows:
            return keys.get(rows, key_id)

    def keys(
        self, tenant: str | None, *, after: str | None = None, limit: int | None = None
    ) -> tuple[Key, ...]:
        """By id; None: those of platform admins. Raises TenantNotFound."""
        with self._database.read() as rows:
            if tenant is not None:
                tenants.require(rows, tenant)
            return rows.keys.of(tenant, after=after, limit=limit)

    def authenticate(self, secret: str) -> Key:
        """Raises KeyRefused, whatever is wrong with it."""
        with self._database.read() as rows:
            return keys.authenticate(rows, secret, now=self._now(rows))

    def trust(self, key: PublicKey, *, actor: str) -> None:
        """Raises SignerInvalid, AlreadyExists (the same key with another role)."""
        with self._change_by(actor) as change:
            signers.trust(change, key)

    def distrust(self, signer: str, *, reason: str, actor: str) -> None:
        """What it signed before stays valid. Raises SignerNotFound, SignerInvalid (the log's own key)."""
        with self._change_by(actor) as change:
            signers.distrust(change, signer, reason=reason)

    def trusted(self) -> dict[str, PublicKey]:
        """Key id -> key, of those trusted now."""
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

    def bases(self) -> dict[Digest, Base]:
        """All that were registered."""
        with self._database.read() as rows:
            return rows.bases.all()

    def publish_policy(self, policy: Policy, *, actor: str) -> Digest:
        """Raises UnsupportedSchema, TenantNotFound."""
        with self._change_by(actor) as change:
            return policies.publish(change, policy)

    def policy(self, digest: Digest) -> Policy:
        """Raises PolicyNotFound."""
        with self._database.read() as rows:
            return policies.get(rows, digest)

    def policies(
        self, tenant: str, *, after: Digest | None = None, limit: int | None = None
    ) -> tuple[Policy, ...]:
        """All that the tenant ever published, by digest. Raises TenantNotFound."""
        with self._database.read() as rows:
            tenants.require(rows, tenant)
            return tuple(rows.policies.of(tenant, after=after, limit=limit).values())

    def publish_routing(
        self,
        tenant: str,
        *,
        routes: Sequence[Route],
        headers: Sequence[DeclaredHeader] | None = None,
        expect_revision: int | None = None,
        actor: str,
    ) -> Routing:
        """All rules at once or none, and only rules that are proved.

        Raises what :func:`registry.catalog.routes.drafted` and :func:`~registry.catalog.routes.check` raise.
        """
        for _ in range(_PROOFS):
            with self._database.read() as rows:
                draft = routing.drafted(
                    rows, tenant, routes=routes, headers=headers, expect_revision=expect_revision
                )
            routing.check(draft)
            with self._change_by(actor) as change:
                published = routing.publish(change, draft)
            if published is not None:
                return published
        raise RoutingChanged(f"what the rules of {tenant} lead to changes faster than they can be proved")

    def routing(self, tenant: str) -> Routing:
        """Revision 0 when nothing was published. Raises TenantNotFound."""
        with self._database.read() as rows:
            tenants.require(rows, tenant)
            return rows.routings.get(tenant)

    def routings(
        self, tenant: str, *, after: int | None = None, limit: int | None = None
    ) -> tuple[RoutingMove, ...]:
        """All that were published, oldest first; ``after``: the entry of one. Raises TenantNotFound."""
        with self._database.read() as rows:
            return routing.history(rows, tenant, after=after, limit=limit)

    def prove_routing(
        self,
        tenant: str | None = None,
        *,
        routes: Sequence[Route] | None = None,
        headers: Sequence[DeclaredHeader] | None = None,
    ) -> Proof:
        """Of ``routes`` as if they were published, else of what is in force; of all when no tenant is named.

        Changes nothing. Raises TenantNotFound, RouteInvalid.
        """
        with self._database.read() as rows:
            return routing.proof_of(rows, tenant, routes=routes, headers=headers)

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

    # Evidence, gates, aliases

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

    def promote(
        self,
        name: AdapterName,
        version: Digest,
        *,
        gate: GatePolicy,
        alias: str = LIVE,
        percent: float = 100,
        expect_epoch: int | None = None,
        release: Envelope | None = None,
        expires_at: str | None = None,
        require_ready: bool = False,
        actor: str,
    ) -> Verdict:
        """Less than 100 percent: a canary beside the stable version. ``require_ready``: only if all engines
        that are to hold the version do, else PromotionNotReady. See
        :func:`registry.catalog.aliases.promote`."""
        move = Move(name, alias, version, gate, percent, expect_epoch, release, expires_at)
        # Before the transaction: other changes are not to wait for this look at all engines.
        readiness = self._following.readiness(name, alias, version) if require_ready else None
        with self._change_by(actor) as change:
            return aliases.promote(change, move, readiness=readiness)

    def prepare(
        self,
        name: AdapterName,
        version: Digest,
        *,
        seconds: float,
        gate: GatePolicy | None = None,
        alias: str = LIVE,
        percent: float = 100,
        expect_epoch: int | None = None,
        actor: str,
    ) -> Preparation:
        """Engines load the version for ``seconds`` at most, and nothing moves; ``gate``: only if it passes.
        See :func:`registry.catalog.preparations.prepare`."""
        move = Move(name, alias, version, gate or _NO_GATE, percent, expect_epoch)
        with self._change_by(actor) as change:
            return preparations.prepare(change, move, judge=gate is not None, seconds=seconds)

    def readiness(self, name: AdapterName, version: Digest, *, alias: str = LIVE) -> Readiness:
        """Which engines are to hold the version if the alias moves to it, and which do. Costs little, also
        when it is asked several times a second. Raises VersionNotFound."""
        found = self._following.readiness(name, alias, version)
        if found is None:
            raise VersionNotFound(f"{name} has no version {version}")
        return found

    def shadow(
        self,
        name: AdapterName,
        versions: Sequence[Digest],
        *,
        alias: str = LIVE,
        expect_epoch: int | None = None,
        actor: str,
    ) -> AliasState:
        """See :func:`registry.catalog.aliases.shadow`."""
        with self._change_by(actor) as change:
            return aliases.shadow(change, name, versions, alias=alias, expect_epoch=expect_epoch)

    def rollback(
        self, name: AdapterName, *, alias: str = LIVE, expect_epoch: int | None = None, actor: str
    ) -> AliasState:
        """See :func:`registry.catalog.aliases.roll_back`."""
        with self._change_by(actor) as change:
            return aliases.roll_back(change, name, alias=alias, expect_epoch=expect_epoch)

    def alias(self, name: AdapterName, alias: str = LIVE) -> AliasState:
        """Raises AliasNotFound."""
        with self._database.read() as rows:
            return aliases.find(rows, name, alias)

    def aliases(self, name: AdapterName) -> tuple[AliasState, ...]:
        with self._database.read() as rows:
            return rows.aliases.of(name)

    def history(
        self,
        name: AdapterName,
        alias: str = LIVE,
        *,
        after: int | None = None,
        limit: int | None = None,
    ) -> tuple[AliasMove, ...]:
        """Oldest first; ``after``: the entry of a move."""
        with self._database.read() as rows:
            return aliases.history(rows, name, alias, after=after, limit=limit)

    def propose(
        self,
        name: AdapterName,
        version: Digest,
        *,
        gate: GatePolicy,
        alias: str = LIVE,
        percent: float = 100,
        expect_epoch: int | None = None,
        release: Envelope | None = None,
        expires_at: str | None = None,
        actor: str,
    ) -> Proposal:
        """See :func:`registry.catalog.proposals.propose`."""
        move = Move(name, alias, version, gate, percent, expect_epoch, release, expires_at)
        with self._change_by(actor) as change:
            return proposals.propose(change, move, entropy=self._entropy)

    def approve(self, proposal: str, *, require_ready: bool = False, actor: str) -> Proposal:
        """``require_ready``: as in :meth:`promote`, if this approval is the last one that was missing.
        See :func:`registry.catalog.proposals.approve`."""
        readiness = None
        if require_ready:
            asked = self.proposal(proposal)
            name = AdapterName(asked.tenant, asked.adapter)
            readiness = self._following.readiness(name, asked.alias, asked.version)
        with self._change_by(actor) as change:
            return proposals.approve(change, proposal, readiness=readiness)

    def reject(self, proposal: str, *, reason: str, actor: str) -> Proposal:
        """Raises ProposalNotFound, ProposalClosed."""
        with self._change_by(actor) as change:
            return proposals.reject(change, proposal, reason=reason)

    def proposal(self, proposal: str) -> Proposal:
        """Raises ProposalNotFound."""
        with self._database.read() as rows:
            return proposals.get(rows, proposal)

    def proposals(
        self, tenant: str, *, after: str | None = None, limit: int | None = None
    ) -> tuple[Proposal, ...]:
        """Oldest first. Raises TenantNotFound."""
        with self._database.read() as rows:
            tenants.require(rows, tenant)
            return rows.proposals.of(tenant, after=after, limit=limit)

    def protect(self, protection: Protection, *, actor: str) -> None:
        """Raises TenantNotFound, ProtectionWeakened."""
        with self._change_by(actor) as change:
            protections.protect(change, protection)

    def protections(self, tenant: str) -> tuple[Protection, ...]:
        """Raises TenantNotFound."""
        with self._database.read() as rows:
            tenants.require(rows, tenant)
            return rows.protections.of(tenant)

    # Usage

    def count_usage(self, batch: UsageBatch) -> bool:
        """False: counted before. Raises UsageInvalid, UsageRegressed."""
        with self._database.write() as rows:
            return usage.count(rows, batch)

    def usage_counted(self, writer: str) -> UsageCounted:
        with self._database.read() as rows:
            return usage.counted(rows, writer)

    def exchange_counts(self, report: CountReport) -> CountAnswer:
        """What a router let through, for what all others did."""
        with self._database.aside() as rows:  # routers ask twice a second: no change waits for them
            return counts.exchange(rows, report, now=self._clock.now().timestamp())

    def usage(self, tenant: str, *, first_day: str, last_day: str) -> tuple[UsageLine, ...]:
        """Raises TenantNotFound, UsageInvalid."""
        with self._database.read() as rows:
            tenants.require(rows, tenant)
            return usage.between(rows, tenant, first_day=first_day, last_day=last_day)

    def usage_sums(
        self,
        tenant: str,
        *,
        first_day: str,
        last_day: str,
        by: By | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> tuple[UsageSum, ...]:
        """See :func:`registry.catalog.usage.sums`. Raises TenantNotFound, UsageInvalid."""
        with self._database.read() as rows:
            tenants.require(rows, tenant)
            return usage.sums(
                rows, tenant, first_day=first_day, last_day=last_day, by=by, after=after, limit=limit
            )

    @property
    def answers(self) -> Answers:
        """What repeated requests are answered."""
        return Answers(self._database, self._clock)

    # Engines and records

    def announce(self, state: EngineState, *, actor: str) -> None:
        """Raises BaseNotFound, EngineReplaced."""
        with self._database.read() as rows:  # a heartbeat must not queue with the writers
            if rows.engines.get(state.engine) == state:
                return
        with self._change_by(actor) as change:
            engines.announce(change, state)

    def engine(self, name: str) -> EngineState | None:
        with self._database.read() as rows:
            return rows.engines.get(name)

    def engines(self) -> tuple[EngineState, ...]:
        """All that ever announced themselves, by name."""
        with self._database.read() as rows:
            return rows.engines.all()

    def slots(self, version: Digest | None = None) -> tuple[Slot, ...]:
        """What was seen to be served, and where; of one version when it is named."""
        with self._database.read() as rows:
            return rows.engines.slots(version)

    def fleet(self) -> Fleet:
        """All engines, what they hold, and for whom."""
        now = self._clock.now()
        with self._database.read() as rows:
            state, strength = state_of(rows), strengths(rows)
        return fleet(state, now, strength)

    def attest(self, envelope: Envelope, *, actor: str) -> Digest:
        """Raises SignatureInvalid, EngineNotFound, EngineReplaced, VersionNotFound, VersionRevoked,
        AttestationInvalid."""
        with self._change_by(actor) as change:
            return engines.attest(change, envelope)

    def withdraw(self, said: Withdrawal, *, actor: str) -> None:
        """Raises EngineNotFound, EngineReplaced, EngineNeeded: :func:`registry.catalog.engines.withdraw`."""
        with self._change_by(actor) as change:
            engines.withdraw(change, said)

    def record_head(self, envelope: Envelope, *, actor: str) -> None:
        """Raises SignatureInvalid, RecordHeadRegressed."""
        with self._change_by(actor) as change:
            records.record(change, envelope)

    def record_heads(self) -> tuple[Envelope, ...]:
        """All that were accepted, oldest first."""
        with self._database.read() as rows:
            return records.heads(rows)

    def ship_records(self, batch: RecordBatch) -> Stored:
        """Raises RecordsMissing, RecordsInvalid; nothing of the batch is kept then."""
        with self._database.write() as rows:
            return shipped.ship(rows, batch)

    def records_stored(self, writer: str) -> Stored:
        with self._database.read() as rows:
            return shipped.stored(rows, writer)

    def record_head_over(self, writer: str, seq: int) -> Entry | None:
        """The oldest entry whose head has the writer's record ``seq`` under its root."""
        with self._database.read() as rows:
            return records.covering(rows, writer, seq)

    # Feed and log

    def position(self) -> Position:
        """The end of the log."""
        with self._database.read() as rows:
            return feed.position(rows)

    def log_size(self) -> int:
        """What tells readers whether there is news, for one small query."""
        with self._database.read() as rows:
            return rows.feed.size()

    def snapshot(self) -> Snapshot:
        with self._database.read() as rows:
            return feed.snapshot(rows)

    def changes(self, after: int, root: Digest | None = None) -> Snapshot | Delta | None:
        """See :func:`registry.catalog.feed.changes`; ``after`` below 1 asks for everything."""
        with self._database.read() as rows:
            return feed.changes(rows, after, root)

    def told(self, after: int, root: Digest | None = None) -> bytes | None:
        """:meth:`changes` as they are sent to readers."""
        with self._database.read() as rows:
            return feed.told(rows, after, root)

    def entries(self, start: int = 0, limit: int = 100, *, tenant: str | None = None) -> tuple[Entry, ...]:
        """From index ``start`` on; ``tenant``: only its own. Raises TenantNotFound."""
        if start < 0 or not 0 <= limit <= MAX_PAGE:
            raise InvalidInput(f"entries start at 0 and come at most {MAX_PAGE} at a time")
        with self._database.read() as rows:
            if tenant is not None:
                tenants.require(rows, tenant)
            return rows.log.entries(start, limit, tenant=tenant)

    def head(self, size: int | None = None) -> Envelope:
        """The newest signed head, or the one over exactly ``size`` entries. Raises HeadNotFound."""
        with self._database.read() as rows:
            return log.head(rows, size)

    def heads(self, *, after: int = 0, limit: int | None = None) -> tuple[Envelope, ...]:
        """All over more than ``after`` entries, oldest first."""
        with self._database.read() as rows:
            return rows.log.heads(after=after, limit=limit)

    def inclusion(self, index: int, size: int | None = None) -> Inclusion:
        """That an entry is in the log as it was at ``size`` entries (None: now). Raises EntryNotFound."""
        with self._database.read() as rows:
            return log.inclusion(rows, index, size)

    def consistency(self, first: int, second: int | None = None) -> Consistency:
        """That the log at ``second`` entries (None: now) only continues the one at ``first``."""
        with self._database.read() as rows:
            return log.consistency(rows, first, second)

    def key_history(self) -> KeyHistory:
        """How the log key changed, up to the newest head. Raises HeadNotFound."""
        with self._database.read() as rows:
            return log.key_history(rows)

    def export_log(self, tenant: str) -> Iterator[bytes]:
        """The tenant's entries as lines that prove themselves, see :mod:`registry.log.export`.

        Raises TenantNotFound.
        """
        return log.export(self._database, tenant, log_key=self._log_key)

    def log_key(self) -> PublicKey:
        """The key that signs heads now, by what the log says."""
        with self._database.read() as rows:
            return log.in_force(rows) or self._log_key

    def rotate_log_key(self, successor: Signer, *, actor: str) -> PublicKey:
        """Heads are signed with ``successor`` from here on, by this catalog too; keep its key first.

        Other processes must start again with it. Raises AlreadyExists.
        """
        with self._change_by(actor) as change:
            key = log.rotate(change, successor)
        self._signer, self._log_key = successor, key
        self._write = changing(self._database, signer=successor, clock=self._clock, entropy=self._entropy)
        return key

    def verify(
        self, *, blobs: bool = False, state: bool = True, progress: Progress = no_progress
    ) -> list[Fault]:
        """Every fault of the log, its heads, the tables and (on request) the blobs; empty means intact.

        Without ``state`` the log and its heads alone, which takes a fifth of the time.
        """
        with self._database.read() as rows:
            kept = self._blobs if blobs else None
            trusted = {self._log_key.id: self._log_key}
            return audit(rows, trusted=trusted, blobs=kept, state=state, progress=progress)
