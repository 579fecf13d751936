"""Everything the registry says about one version that an engine needs, fetched and checked once."""

import asyncio
from dataclasses import dataclass

from registry.contract import Contract
from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.fingerprint import Fingerprint, beyond_bounds
from registry.manifests import Manifest
from registry.models import VersionState
from server.engines.errors import CacheUnusable
from server.engines.ports import ControlPlane


class NotServable(Exception):
    """Internal: this version can never be served by this engine; the text says why."""


@dataclass(frozen=True, slots=True)
class Package:
    version: Digest
    manifest: Manifest
    fingerprint: Fingerprint
    fingerprint_digest: Digest
    contract: Contract
    contract_digest: Digest


async def fetch_package(control: ControlPlane, known: VersionState, *, base: Digest) -> Package:
    """Raises NotServable, and whatever the control plane raises (then it may work later)."""
    version = known.version
    manifest = await control.manifest(version)
    if manifest.identity() != version:
        raise CacheUnusable(f"the manifest received is not the one of {version.short}")
    if manifest.base != base:
        raise NotServable("it was trained on another base")
    digest = known.fingerprint if manifest.fingerprint is None else manifest.fingerprint.digest
    if digest is None:
        raise NotServable("it has no fingerprint, so nothing could prove that it answers")
    try:
        documents = await asyncio.gather(control.blob(digest), control.blob(manifest.contract.digest))
        fingerprint, contract = Fingerprint.parse(documents[0]), Contract.parse(documents[1])
    except InvalidDocument as error:
        raise NotServable(error.message) from None
    if fingerprint.base != base:
        raise NotServable("its fingerprint was taken on another base")
    # Whatever the registry let in, and older ones let in more: others wait while the engine is asked.
    if (beyond := beyond_bounds(fingerprint)) is not None:
        raise NotServable(f"its fingerprint is not one that engines are asked: {beyond}")
    return Package(
        version=version,
        manifest=manifest,
        fingerprint=fingerprint,
        fingerprint_digest=digest,
        contract=contract,
        contract_digest=manifest.contract.digest,
    )
