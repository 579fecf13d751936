"""What an entry does to the tables: the only code that changes them, live and in a replay alike.

Signatures inside entries are checked here again, against the signers trusted at that point of the log.
"""

from collections.abc import Callable, Mapping
from typing import Any

from registry.contract import Contract
from registry.digests import Digest
from registry.errors import InvalidDocument, LogCorrupt, SignatureInvalid
from registry.evidence import Report
from registry.fingerprint import Attestation
from registry.log.entries import Entry
from registry.manifests import Manifest
from registry.models import (
    AliasState,
    Base,
    EngineState,
    Key,
    Policy,
    PublicKey,
    RecordHead,
    Route,
    Slot,
    Tenant,
)
from registry.signing import types
from registry.signing.envelope import Envelope, verify
from registry.store.transaction import Transaction

TENANT_CREATED = "tenant.created"
KEY_ISSUED = "key.issued"
KEY_REVOKED = "key.revoked"
SIGNER_TRUSTED = "signer.trusted"
BASE_REGISTERED = "base.registered"
POLICY_PUBLISHED = "policy.published"
ROUTES_REPLACED = "routes.replaced"
VERSION_PUSHED = "version.pushed"
VERSION_REVOKED = "version.revoked"
REPORT_FILED = "report.filed"
ALIAS_MOVED = "alias.moved"
ENGINE_ANNOUNCED = "engine.announced"
ENGINE_ATTESTED = "engine.attested"
RECORDS_HEAD = "records.head"


def apply(rows: Transaction, entry: Entry) -> None:
    """Raises LogCorrupt, naming the entry, when it says nothing that can be done."""
    known = _EFFECTS.get(entry.kind)
    if known is None:
        raise LogCorrupt(f"entry {entry.index} is of an unknown kind: {entry.kind[:80]!r}", entry=entry.index)
    try:
        known(rows, entry)
    except (KeyError, TypeError, InvalidDocument, SignatureInvalid) as error:
        raise LogCorrupt(f"entry {entry.index} cannot be applied: {error}", entry=entry.index) from error


def signed_payload(rows: Transaction, envelope: Envelope, *, payload_type: str, role: str) -> bytes:
    """The bytes that a signer trusted now, with that role, signed. Raises SignatureInvalid."""
    return verify(envelope, payload_type=payload_type, trusted=rows.signers.all(), role=role)


def attestation_id(envelope: Envelope) -> Digest:
    """Of the whole envelope: the same finding signed twice is two attestations."""
    return envelope.identity()


def _tenant_created(rows: Transaction, entry: Entry) -> None:
    rows.tenants.add(Tenant.build(entry.body["tenant"]), entry=entry.index)


def _key_changed(rows: Transaction, entry: Entry) -> None:
    rows.keys.put(Key.build(entry.body["key"]), entry=entry.index)


def _signer_trusted(rows: Transaction, entry: Entry) -> None:
    rows.signers.add(PublicKey.build(entry.body["signer"]), entry=entry.index)


def _base_registered(rows: Transaction, entry: Entry) -> None:
    rows.bases.put(Base.build(entry.body["base"]), Contract.build(entry.body["contract"]), entry=entry.index)


def _policy_published(rows: Transaction, entry: Entry) -> None:
    rows.policies.add(Policy.build(entry.body["policy"]), entry=entry.index)


def _routes_replaced(rows: Transaction, entry: Entry) -> None:
    routes = [Route.build(route) for route in entry.body["routes"]]
    rows.routes.replace(entry.subject, routes, entry=entry.index)


def _version_pushed(rows: Transaction, entry: Entry) -> None:
    rows.versions.add(Manifest.build(entry.body["manifest"]), at=entry.at, entry=entry.index)


def _version_revoked(rows: Transaction, entry: Entry) -> None:
    rows.versions.revoke(entry.subject, entry=entry.index)
    rows.engines.drop_slots(version=entry.subject)


def _report_filed(rows: Transaction, entry: Entry) -> None:
    envelope = Envelope.build(entry.body["envelope"])
    payload = signed_payload(rows, envelope, payload_type=types.REPORT, role="trainer")
    rows.versions.add_report(Report.parse(payload), entry=entry.index)


def _alias_moved(rows: Transaction, entry: Entry) -> None:
    rows.aliases.put(AliasState.build(entry.body["alias"]), entry=entry.index)


def _engine_announced(rows: Transaction, entry: Entry) -> None:
    """Whatever changed: what was attested was attested about the engine as it was."""
    state = EngineState.build(entry.body["engine"])
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
    rows.engines.put_slot(slot, entry=entry.index)


def _records_head(rows: Transaction, entry: Entry) -> None:
    envelope = Envelope.build(entry.body["envelope"])
    payload = signed_payload(rows, envelope, payload_type=types.RECORD_HEAD, role="router")
    rows.records.put(RecordHead.parse(payload), entry=entry.index)


_EFFECTS: Mapping[str, Callable[[Transaction, Entry], Any]] = {
    TENANT_CREATED: _tenant_created,
    KEY_ISSUED: _key_changed,
    KEY_REVOKED: _key_changed,
    SIGNER_TRUSTED: _signer_trusted,
    BASE_REGISTERED: _base_registered,
    POLICY_PUBLISHED: _policy_published,
    ROUTES_REPLACED: _routes_replaced,
    VERSION_PUSHED: _version_pushed,
    VERSION_REVOKED: _version_revoked,
    REPORT_FILED: _report_filed,
    ALIAS_MOVED: _alias_moved,
    ENGINE_ANNOUNCED: _engine_announced,
    ENGINE_ATTESTED: _engine_attested,
    RECORDS_HEAD: _records_head,
}
