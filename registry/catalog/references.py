"""File signed references: from then on a version that came without a fingerprint has one."""

from registry.catalog import versions
from registry.catalog.change import Change
from registry.catalog.errors import ReferenceInvalid
from registry.catalog.intake import check_fingerprint
from registry.catalog.projection import VERSION_REFERENCED, signed_payload
from registry.digests import Digest
from registry.errors import AlreadyExists, VersionRevoked
from registry.fingerprint import Fingerprint
from registry.names import AdapterName
from registry.references import Reference
from registry.signing.envelope import Envelope
from registry.signing.types import REFERENCE
from registry.store.tables.versions import StoredVersion
from registry.store.transaction import Transaction


def check(rows: Transaction, envelope: Envelope, fingerprint: Fingerprint) -> StoredVersion:
    """The version that it is of.

    Raises SignatureInvalid, ReferenceInvalid, FingerprintInvalid, AdapterZeroEffect, VersionNotFound,
    VersionRevoked; AlreadyExists for a version that has another fingerprint: what engines compare with never
    changes under them.
    """
    payload = signed_payload(rows, envelope, payload_type=REFERENCE, role="trainer")
    said = Reference.parse(payload)
    if payload != said.canonical():
        raise ReferenceInvalid("a reference is signed in its canonical form, and this one was not")
    found = versions.of_adapter(rows, AdapterName(said.tenant, said.adapter), said.version)
    if found.revoked:
        raise VersionRevoked(f"{said.version} was revoked")
    if said.base != found.manifest.base:
        raise ReferenceInvalid("the reference was made on another base")
    if fingerprint.identity() != said.fingerprint:
        raise ReferenceInvalid("another fingerprint was signed than came with it")
    check_fingerprint(fingerprint, found.manifest.base)
    if found.fingerprint not in (None, said.fingerprint):
        raise AlreadyExists(
            f"{said.version} has a fingerprint, and keeps it",
            hint="push it again with a fingerprint: that is another version",
        )
    return found


def file(change: Change, envelope: Envelope, fingerprint: Fingerprint) -> Digest:
    """The version. The same reference again changes nothing. Raises what :func:`check` raises."""
    found = check(change.rows, envelope, fingerprint)
    if found.fingerprint is None:
        change.write(VERSION_REFERENCED, found.digest, {"envelope": envelope.model_dump(mode="json")})
    return found.digest
