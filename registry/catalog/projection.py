"""What an entry does to the tables: the only code that changes them, live and in a replay alike.

Signatures inside entries are checked here again, against the signers trusted at that point of the log.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from registry.contract import Contract
from registry.digests import Digest
from registry.errors import InvalidDocument, LogCorrupt, SignatureInvalid
from registry.evidence import Report
from registry.fingerprint import Attestation
from registry.log.entries import Entry
from registry.log.key_chain import LOG_KEY_ROTATED, Rotation
from registry.manifests import Manifest
from registry.models import (
    AliasState,
    Base,
    EngineState,
    Isolation,
    Key,
    Policy,
    PublicKey,
    RecordHead,
    Route,
    Routing,
    Slot,
    Tenant,
    Withdrawal,
)
from registry.promotions import Preparation, Proposal, Protection
from registry.references import Reference
from registry.routing.choice import derived
from registry.signing import types
from registry.signing.envelope import Envelope, verify
from registry.store.transaction import Transaction

TENANT_CREATED = "tenant.created"
TENANT_CHANGED = "tenant.changed"
TENANT_ISOLATED = "tenant.isolated"
KEY_ISSUED = "key.issued"
KEY_CHANGED = "key.changed"
KEY_REVOKED = "key.revoked"
SIGNER_TRUSTED = "signer.trusted"
SIGNER_DISTRUSTED = "signer.distrusted"
BASE_REGISTERED = "base.registered"
POLICY_PUBLISHED = "policy.published"
ROUTES_REPLACED = "routes.replaced"
"""Of logs from before routings were documents; nothing writes it any more."""
ROUTING_PUBLISHED = "routing.published"
VERSION_PUSHED = "version.pushed"
VERSION_REVOKED = "version.revoked"
VERSION_SIGNED = "version.signed"
VERSION_REFERENCED = "version.referenced"
REPORT_FILED = "report.filed"
ALIAS_MOVED = "alias.moved"
ALIAS_PROTECTED = "alias.protected"
PROMOTION_PREPARED = "promotion.prepared"
PROMOTION_PROPOSED = "promotion.proposed"
PROMOTION_APPROVED = "promotion.approved"
PROMOTION_REJECTED = "promotion.rejected"
PROMOTION_VOIDED = "promotion.voided"
ENGINE_ANNOUNCED = "engine.announced"
ENGINE_ATTESTED = "engine.attested"
ENGINE_WITHDREW = "engine.withdrew"
RECORDS_HEAD = "records.head"


def apply(rows: Transaction, entry: Entry) -> None:
    """Raises LogCorrupt, naming the entry, when it says nothing that can be done."""
    known = _KINDS.get(entry.kind)
    if known is None:
        raise LogCorrupt(f"entry {entry.index} is of an unknown kind: {entry.kind[:80]!r}", entry=entry.index)
    try:
        known.effect(rows, entry)
    except (KeyError, TypeError, ValueError, InvalidDocument, SignatureInvalid) as error:
        raise LogCorrupt(f"entry {entry.index} cannot be applied: {error}", entry=entry.index) from error


def owner(rows: Transaction, kind: str, subject: str, body: Mapping[str, Any]) -> str | None:
    """The tenant whose entry this is, before it is applied; None: the platform's own.

    Attestations are the platform's: they compare a version with other tenants' versions, by digest.
    """
    known = _KINDS.get(kind)
    return known.owner(rows, subject, body) if known else None


def signed_payload(rows: Transaction, envelope: Envelope, *, payload_type: str, role: str) -> bytes:
    """The bytes that a signer trusted now, with that role, signed. Raises SignatureInvalid."""
    return verify(envelope, payload_type=payload_type, trusted=rows.signers.all(), role=role)


def attestation_id(envelope: Envelope) -> Digest:
    """Of the whole envelope: the same finding signed twice is two attestations."""
    return envelope.identity()


def _tenant_created(rows: Transaction, entry: Entry) -> None:
    rows.tenants.add(Tenant.build(entry.body["tenant"]), entry=entry.index)


def _tenant_changed(rows: Transaction, entry: Entry) -> None:
    """Its isolation has entries of its own, which are the platform's: they name engines."""
    known = rows.tenants.get(entry.subject)
    changed = Tenant.build(entry.body["tenant"])
    kept = known.isolation if known else changed.isolation
    rows.tenants.put(changed.model_copy(update={"isolation": kept}), entry=entry.index)


def _tenant_isolated(rows: Transaction, entry: Entry) -> None:
    known = rows.tenants.get(entry.body["tenant"])
    if known is None:
        raise LogCorrupt(f"entry {entry.index} isolates a tenant that is not there", entry=entry.index)
    isolation = Isolation.build(entry.body["isolation"])
    rows.tenants.put(known.model_copy(update={"isolation": isolation}), entry=entry.index)
    _end(rows, entry)


def _end(rows: Transaction, entry: Entry) -> None:
    """Slots that were allowed for the time of a move."""
    for engine, version in entry.body.get("ended", ()):
        rows.engines.drop_slots(engine=engine, version=version)


def _key_issued(rows: Transaction, entry: Entry) -> None:
    rows.keys.put(Key.build(entry.body["key"]), issuer=entry.actor, entry=entry.index)


def _key_changed(rows: Transaction, entry: Entry) -> None:
    key = Key.build(entry.body["key"])
    rows.keys.put(key, issuer=rows.keys.issuer(key.id) or "", entry=entry.index)


def _log_key_rotated(rows: Transaction, entry: Entry) -> None:
    rows.signers.add(Rotation.of(entry).signer, entry=entry.index)


def _signer_trusted(rows: Transaction, entry: Entry) -> None:
    rows.signers.add(PublicKey.build(entry.body["signer"]), entry=entry.index)


def _signer_distrusted(rows: Transaction, entry: Entry) -> None:
    rows.signers.distrust(entry.subject, entry=entry.index)


def _base_registered(rows: Transaction, entry: Entry) -> None:
    rows.bases.put(Base.build(entry.body["base"]), Contract.build(entry.body["contract"]), entry=entry.index)


def _policy_published(rows: Transaction, entry: Entry) -> None:
    rows.policies.add(Policy.build(entry.body["policy"]), entry=entry.index)


def _routes_replaced(rows: Transaction, entry: Entry) -> None:
    routes = tuple(Route.build(route) for route in entry.body["routes"])
    revision = rows.routings.get(entry.subject).revision + 1
    routing = Routing(tenant=entry.subject, revision=revision, headers=derived(routes), routes=routes)
    _route(rows, routing, entry)


def _routing_published(rows: Transaction, entry: Entry) -> None:
    _route(rows, Routing.build(entry.body["routing"]), entry)


def _route(rows: Transaction, routing: Routing, entry: Entry) -> None:
    rows.routings.put(routing, entry=entry.index)
    rows.routes.replace(routing.tenant, routing.routes, entry=entry.index)


def _version_pushed(rows: Transaction, entry: Entry) -> None:
    rows.versions.add(Manifest.build(entry.body["manifest"]), at=entry.at, entry=entry.index)


def _version_revoked(rows: Transaction, entry: Entry) -> None:
    rows.versions.revoke(entry.subject, entry=entry.index)
    rows.engines.drop_slots(version=entry.subject)


def _version_signed(rows: Transaction, entry: Entry) -> None:
    envelope = Envelope.build(entry.body["envelope"])
    signer = rows.signers.get(entry.body["signer"])
    stored = rows.versions.get(entry.subject)
    if signer is None or stored is None:
        raise LogCorrupt(f"entry {entry.index} signs what is not there", entry=entry.index)
    payload = verify(envelope, payload_type=types.MANIFEST, trusted={signer.id: signer}, role="trainer")
    if payload != stored.manifest.canonical():
        raise SignatureInvalid("another manifest was signed")
    rows.signatures.add(stored.digest, signer.id, stored.manifest.tenant, envelope, entry=entry.index)


def _version_referenced(rows: Transaction, entry: Entry) -> None:
    envelope = Envelope.build(entry.body["envelope"])
    payload = signed_payload(rows, envelope, payload_type=types.REFERENCE, role="trainer")
    said = Reference.parse(payload)
    if said.version != entry.subject:
        raise SignatureInvalid("another version was signed")
    rows.versions.refer(said.version, said.fingerprint, entry=entry.index)


def _report_filed(rows: Transaction, entry: Entry) -> None:
    envelope = Envelope.build(entry.body["envelope"])
    payload = signed_payload(rows, envelope, payload_type=types.REPORT, role="trainer")
    rows.versions.add_report(Report.parse(payload), entry=entry.index)


def _alias_moved(rows: Transaction, entry: Entry) -> None:
    if entry.body.get("release") is not None:
        signed_payload(
            rows, Envelope.build(entry.body["release"]), payload_type=types.RELEASE, role="release"
        )
    rows.aliases.put(AliasState.build(entry.body["alias"]), entry=entry.index)


def _promotion_prepared(rows: Transaction, entry: Entry) -> None:
    rows.preparations.put(Preparation.build(entry.body["preparation"]), entry=entry.index)


def _alias_protected(rows: Transaction, entry: Entry) -> None:
    rows.protections.put(Protection.build(entry.body["protection"]), entry=entry.index)


def _proposal_changed(rows: Transaction, entry: Entry) -> None:
    rows.proposals.put(Proposal.build(entry.body["proposal"]), entry=entry.index)


def _engine_announced(rows: Transaction, entry: Entry) -> None:
    """Whatever changed: what was attested was attested about the engine as it was."""
    if (signed := entry.body.get("envelope")) is None:  # the platform itself, or older than the signatures
        state = EngineState.build(entry.body["engine"])
    else:
        envelope = Envelope.build(signed)
        payload = signed_payload(rows, envelope, payload_type=types.ANNOUNCEMENT, role="engine")
        state = EngineState.parse(payload)
    rows.engines.drop_slots(engine=state.engine)
    rows.engines.put(state, entry=entry.index)


def _engine_attested(rows: Transaction, entry: Entry) -> None:
    envelope = Envelope.build(entry.body["envelope"])
    payload = signed_payload(rows, envelope, payload_type=types.ATTESTATION, role="engine")
    found = Attestation.parse(payload)
    if not found.passed:
        rows.engines.drop_slots(engine=found.engine, version=found.version)
        return
    slot = Slot(
        engine=found.engine, boot=found.boot, version=found.version, attestation=attestation_id(envelope)
    )
    if entry.body.get("slot", True):
        rows.engines.put_slot(slot, entry=entry.index)
    _end(rows, entry)


def _engine_withdrew(rows: Transaction, entry: Entry) -> None:
    said = Withdrawal.build(entry.body["withdrawal"])
    if (signed := entry.body.get("envelope")) is not None:  # else older than the signatures
        envelope = Envelope.build(signed)
        payload = signed_payload(rows, envelope, payload_type=types.WITHDRAWAL, role="engine")
        whole = Withdrawal.parse(payload)  # of which some were not listed any more
        if (said.engine, said.boot) != (whole.engine, whole.boot) or not set(said.versions) <= set(
            whole.versions
        ):
            raise InvalidDocument("a withdrawal says more than its engine did")
    for version in said.versions:
        rows.engines.drop_slots(engine=said.engine, version=version)


def _records_head(rows: Transaction, entry: Entry) -> None:
    envelope = Envelope.build(entry.body["envelope"])
    payload = signed_payload(rows, envelope, payload_type=types.RECORD_HEAD, role="router")
    rows.records.put(RecordHead.parse(payload), entry=entry.index)


_Owner: TypeAlias = Callable[[Transaction, str, Mapping[str, Any]], str | None]


def _platform(rows: Transaction, subject: str, body: Mapping[str, Any]) -> None:
    return None


def _subject(rows: Transaction, subject: str, body: Mapping[str, Any]) -> str:
    return subject


def _of_version(rows: Transaction, subject: str, body: Mapping[str, Any]) -> str | None:
    name = rows.versions.owner(body.get("version", subject))
    return name.tenant if name else None


def _named(noun: str) -> _Owner:
    """In the tenant of the document that the entry holds."""

    def tenant(rows: Transaction, subject: str, body: Mapping[str, Any]) -> str | None:
        found: str | None = body[noun]["tenant"]
        return found

    return tenant


@dataclass(frozen=True, slots=True)
class _Kind:
    effect: Callable[[Transaction, Entry], None]
    owner: _Owner


_KINDS: Mapping[str, _Kind] = {
    TENANT_CREATED: _Kind(_tenant_created, _subject),
    TENANT_CHANGED: _Kind(_tenant_changed, _subject),
    TENANT_ISOLATED: _Kind(_tenant_isolated, _platform),
    KEY_ISSUED: _Kind(_key_issued, _named("key")),
    KEY_CHANGED: _Kind(_key_changed, _named("key")),
    KEY_REVOKED: _Kind(_key_changed, _named("key")),
    SIGNER_TRUSTED: _Kind(_signer_trusted, _platform),
    SIGNER_DISTRUSTED: _Kind(_signer_distrusted, _platform),
    BASE_REGISTERED: _Kind(_base_registered, _platform),
    POLICY_PUBLISHED: _Kind(_policy_published, _named("policy")),
    ROUTES_REPLACED: _Kind(_routes_replaced, _subject),
    ROUTING_PUBLISHED: _Kind(_routing_published, _named("routing")),
    VERSION_PUSHED: _Kind(_version_pushed, _named("manifest")),
    VERSION_REVOKED: _Kind(_version_revoked, _of_version),
    VERSION_SIGNED: _Kind(_version_signed, _of_version),
    VERSION_REFERENCED: _Kind(_version_referenced, _of_version),
    REPORT_FILED: _Kind(_report_filed, _of_version),
    ALIAS_MOVED: _Kind(_alias_moved, _named("alias")),
    ALIAS_PROTECTED: _Kind(_alias_protected, _named("protection")),
    PROMOTION_PREPARED: _Kind(_promotion_prepared, _named("preparation")),
    PROMOTION_PROPOSED: _Kind(_proposal_changed, _named("proposal")),
    PROMOTION_APPROVED: _Kind(_proposal_changed, _named("proposal")),
    PROMOTION_REJECTED: _Kind(_proposal_changed, _named("proposal")),
    PROMOTION_VOIDED: _Kind(_proposal_changed, _named("proposal")),
    ENGINE_ANNOUNCED: _Kind(_engine_announced, _platform),
    ENGINE_ATTESTED: _Kind(_engine_attested, _platform),
    ENGINE_WITHDREW: _Kind(_engine_withdrew, _platform),
    RECORDS_HEAD: _Kind(_records_head, _platform),
    LOG_KEY_ROTATED: _Kind(_log_key_rotated, _platform),
}
