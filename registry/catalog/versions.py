"""Push, find and revoke adapter versions."""

import math
import shutil
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal, TypeAlias

from registry.catalog import bases, tenants
from registry.catalog.change import Change, Changing
from registry.catalog.errors import FingerprintInvalid
from registry.catalog.projection import VERSION_PUSHED, VERSION_REVOKED
from registry.contract import Contract
from registry.digests import Digest
from registry.errors import AdapterZeroEffect, AliasNotFound, InvalidInput, VersionNotFound, VersionRevoked
from registry.fingerprint import Fingerprint
from registry.intake import inspect
from registry.manifests import BlobRef, LoraShape, Manifest, Provenance
from registry.names import AdapterName, Ref, parse_name
from registry.ports import Blobs
from registry.store.database import Database
from registry.store.tables.versions import StoredVersion
from registry.store.transaction import Transaction

CONTRACT = "contract.json"
FINGERPRINT = "fingerprint.json"
State: TypeAlias = Literal["pushed", "evaluated", "live", "revoked"]


@dataclass(frozen=True, slots=True)
class VersionSummary:
    version: Digest
    pushed_at: str
    state: State
    """Derived: revoked; else live (an alias shows it); else evaluated (a report is filed); else pushed."""
    aliases: tuple[str, ...]


def push(
    name: AdapterName,
    folder: Path,
    *,
    base: Digest,
    fingerprint: Fingerprint | None,
    provenance: Provenance,
    max_rank: int,
    actor: str,
    database: Database,
    blobs: Blobs,
    change_by: Changing,
) -> Digest:
    """Everything is checked before the first byte is stored; blobs come before the rows that name them.

    A crash in between leaves bytes that nothing refers to, and pushing again uses them.
    """
    parse_name(name.tenant, "tenant")
    parse_name(name.adapter, "adapter name")
    with database.read() as rows:
        tenants.require(rows, name.tenant)
        _, document, contract = bases.find(rows, base)
    if fingerprint is not None:
        _check_fingerprint(fingerprint, base)
    _, found = inspect(folder, base=document, max_rank=max_rank)
    with tempfile.TemporaryDirectory(prefix="tenon-push-") as private:
        # The given folder may still be written to: only what lies in a private copy is the same bytes twice.
        for path in found:
            shutil.copyfile(path, Path(private) / path.name, follow_symlinks=False)
        shape, files = inspect(Path(private), base=document, max_rank=max_rank)
        manifest = _stored(
            blobs,
            name=name,
            files=files,
            base=base,
            contract=contract,
            fingerprint=fingerprint,
            shape=shape,
            provenance=provenance,
        )
    version = manifest.identity()
    with change_by(actor) as change:
        tenants.require(change.rows, name.tenant)
        known = change.rows.versions.get(version)
        if known is None:
            change.write(VERSION_PUSHED, version, {"manifest": manifest.model_dump(mode="json")})
        elif known.revoked:
            raise VersionRevoked(f"{version} was pushed before and then revoked")
    return version


def _stored(
    blobs: Blobs,
    *,
    name: AdapterName,
    files: tuple[Path, ...],
    base: Digest,
    contract: Contract,
    fingerprint: Fingerprint | None,
    shape: LoraShape,
    provenance: Provenance,
) -> Manifest:
    refs = []
    for path in sorted(files, key=lambda path: path.name):
        with path.open("rb") as stream:
            digest, size = blobs.put(stream)
        refs.append(BlobRef(path=path.name, digest=digest, size=size))
    return Manifest(
        tenant=name.tenant,
        adapter=name.adapter,
        base=base,
        lora=shape,
        files=tuple(refs),
        contract=_put(blobs, CONTRACT, contract.canonical()),
        fingerprint=_put(blobs, FINGERPRINT, fingerprint.canonical()) if fingerprint else None,
        provenance=provenance,
    )


def _put(blobs: Blobs, path: str, data: bytes) -> BlobRef:
    digest, size = blobs.put(BytesIO(data))
    return BlobRef(path=path, digest=digest, size=size)


def _check_fingerprint(fingerprint: Fingerprint, base: Digest) -> None:
    if fingerprint.base != base:
        raise FingerprintInvalid("the fingerprint was made on another base")
    for number, probe in enumerate(fingerprint.probes):
        for what, reference in (("own", probe.own), ("base", probe.base)):
            if not reference or not all(
                math.isfinite(logprob) and logprob <= 1e-4 for _, logprob in reference
            ):
                raise FingerprintInvalid(f"probe {number}: {what} must hold finite log-probabilities")
            if len({token for token, _ in reference}) != len(reference):
                raise FingerprintInvalid(f"probe {number}: {what} names a token twice")
    if not math.isfinite(fingerprint.distance_to_base) or fingerprint.distance_to_base < 0:
        raise FingerprintInvalid("distance_to_base must be a finite number, 0 or more")
    if fingerprint.distance_to_base == 0:
        raise AdapterZeroEffect("the fingerprint is that of the bare base", hint="train the adapter first")


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


def resolve(rows: Transaction, ref: Ref) -> Digest:
    if ref.version is not None:
        return of_adapter(rows, ref.name, ref.version).digest
    state = rows.aliases.get(ref.name, ref.alias or "")
    if state is None:
        raise AliasNotFound(f"{ref} points nowhere", hint="promote a version first")
    return state.version


def summaries(rows: Transaction, name: AdapterName) -> tuple[VersionSummary, ...]:
    pointing: dict[Digest, list[str]] = {}
    for alias in rows.aliases.of(name):
        pointing.setdefault(alias.version, []).append(alias.alias)
    evaluated = rows.versions.evaluated()
    return tuple(
        VersionSummary(
            version=item.digest,
            pushed_at=item.pushed_at,
            state=_state(item, live=item.digest in pointing, evaluated=item.digest in evaluated),
            aliases=tuple(pointing.get(item.digest, ())),
        )
        for item in rows.versions.of(name)
    )


def _state(item: StoredVersion, *, live: bool, evaluated: bool) -> State:
    if item.revoked:
        return "revoked"
    if live:
        return "live"
    return "evaluated" if evaluated else "pushed"


def revoke(change: Change, version: str, *, reason: str) -> None:
    """Revoking twice changes nothing (the first reason stays)."""
    if not reason.strip() or len(reason) > 500:
        raise InvalidInput("give a reason of 1 to 500 characters: it stays in the log")
    if not find(change.rows, version).revoked:
        change.write(VERSION_REVOKED, version, {"reason": reason})
