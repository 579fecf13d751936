"""Find, list and sign adapter versions."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from registry.catalog.change import Change
from registry.catalog.projection import VERSION_SIGNED
from registry.digests import Digest
from registry.errors import AliasNotFound, SignatureInvalid, VersionNotFound, VersionRevoked
from registry.names import AdapterName, Ref
from registry.signing.envelope import Envelope, verify
from registry.signing.types import MANIFEST
from registry.store.tables.versions import ListedVersion, StoredVersion
from registry.store.transaction import Transaction

State: TypeAlias = Literal["pushed", "evaluated", "live", "revoked"]


@dataclass(frozen=True, slots=True)
class VersionSummary:
    version: Digest
    pushed_at: str
    state: State
    """Derived: revoked; else live (an alias shows it); else evaluated (a report is filed); else pushed."""
    aliases: tuple[str, ...]
    """Those that show it, to everybody or to a canary's share."""


def find(rows: Transaction, version: str) -> StoredVersion:
    found = rows.versions.get(version)
    if found is None:
        raise VersionNotFound(f"there is no version {version[:80]!r}")
    return found


def of_adapter(rows: Transaction, name: AdapterName, version: str) -> StoredVersion:
    """Another adapter's version is as unknown as one that does not exist."""
    found = rows.versions.get(version)
    if found is None or found.name != name:
        raise VersionNotFound(f"{name} has no version {version[:80]}")
    return found


def resolve(rows: Transaction, ref: Ref, *, now: str) -> Digest:
    """An alias by its stable version: who gets a canary depends on who asks."""
    if ref.version is not None:
        return of_adapter(rows, ref.name, ref.version).digest
    state = rows.aliases.get(ref.name, ref.alias or "")
    if state is None or (state.expires_at is not None and state.expires_at <= now):
        raise AliasNotFound(f"{ref} points nowhere", hint="promote a version first")
    return state.version


def summaries(
    rows: Transaction, name: AdapterName, *, now: str, after: Digest | None = None, limit: int | None = None
) -> tuple[VersionSummary, ...]:
    """Oldest push first; ``after``: a version."""
    showing = _showing(rows, name, now)
    listed = rows.versions.listed(name, after=after, limit=limit)
    return tuple(_summary(item, showing.get(item.digest, [])) for item in listed)


def summary(rows: Transaction, version: str, *, now: str) -> VersionSummary:
    """Raises VersionNotFound."""
    item, name = rows.versions.one_listed(version), rows.versions.owner(version)
    if item is None or name is None:
        raise VersionNotFound(f"there is no version {version[:80]!r}")
    showing = _showing(rows, name, now).get(item.digest, [])
    return _summary(item, showing)


def _showing(rows: Transaction, name: AdapterName, now: str) -> dict[Digest, list[str]]:
    showing: dict[Digest, list[str]] = {}
    for state in rows.aliases.of(name):
        if state.expires_at is None or state.expires_at > now:
            for version in (state.version, *(canary.version for canary in state.canaries)):
                showing.setdefault(version, []).append(state.alias)
    return showing


def _summary(item: ListedVersion, showing: list[str]) -> VersionSummary:
    return VersionSummary(item.digest, item.pushed_at, _state(item, live=bool(showing)), tuple(showing))


def _state(item: ListedVersion, *, live: bool) -> State:
    if item.revoked:
        return "revoked"
    if live:
        return "live"
    return "evaluated" if item.evaluated else "pushed"


def sign(change: Change, version: str, envelope: Envelope) -> None:
    """A trainer's signature over the canonical manifest; signing again with the same key changes nothing.

    Raises VersionNotFound, VersionRevoked, SignatureInvalid (also for every other role's key).
    """
    found = find(change.rows, version)
    if found.revoked:
        raise VersionRevoked(f"{version} was revoked")
    trusted = change.rows.signers.all()
    payload = verify(envelope, payload_type=MANIFEST, trusted=trusted, role="trainer")
    if payload != found.manifest.canonical():
        raise SignatureInvalid("another manifest was signed, or not its canonical form")
    signer = _signer(envelope, change.rows)
    if not change.rows.signatures.has(version, signer):
        body = {"signer": signer, "envelope": envelope.model_dump(mode="json")}
        change.write(VERSION_SIGNED, version, body)


def _signer(envelope: Envelope, rows: Transaction) -> str:
    """Whose signature it is that holds; the key id inside the envelope is only a hint."""
    for key in rows.signers.all().values():
        try:
            verify(envelope, payload_type=MANIFEST, trusted={key.id: key}, role="trainer")
        except SignatureInvalid:
            continue
        return key.id
    raise SignatureInvalid("no trusted trainer signed it")
