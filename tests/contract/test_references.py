"""Fingerprints that come after the push: the same from a catalog in a folder and one behind a URL."""

from pathlib import Path

import pytest

from registry.catalog.errors import FingerprintInvalid, ReferenceInvalid, VersionUnfingerprinted
from registry.digests import Digest
from registry.errors import AlreadyExists, SignatureInvalid, VersionNotFound, VersionRevoked
from registry.fingerprint import Fingerprint
from registry.references import Reference
from registry.signing.envelope import Envelope
from registry.signing.types import REFERENCE, REPORT
from tests.support.adapters import endless_fingerprints, tiny_fingerprint
from tests.support.registries import GATE, NAME, World, signer


def _said(world: World, version: Digest, fingerprint: Fingerprint) -> Reference:
    return Reference(
        tenant=NAME.tenant,
        adapter=NAME.adapter,
        version=version,
        base=world.base,
        fingerprint=fingerprint.identity(),
    )


def _signed(said: Reference) -> Envelope:
    return signer("trainer").sign(REFERENCE, said.canonical())


def test_a_bare_upload_becomes_servable(world: World, tmp_path: Path) -> None:
    catalog, version = world.catalog, world.push(fingerprinted=False)
    other, fingerprint = world.push(seed=4), tiny_fingerprint(world.base, seed=5)
    manifest = catalog.manifest(version)
    assert (catalog.fingerprint(version), catalog.fingerprint_digest(version)) == (None, None)
    catalog.file_report(world.report(version), actor="t")
    with pytest.raises(VersionUnfingerprinted):
        catalog.promote(NAME, version, gate=GATE, actor="t")
    for _ in range(2):  # the second time changes nothing
        filed = catalog.file_reference(_signed(_said(world, version, fingerprint)), fingerprint, actor="t")
        assert filed == version
    assert catalog.fingerprint(version) == fingerprint
    assert catalog.fingerprint_digest(version) == fingerprint.identity()
    assert catalog.manifest(version) == manifest, "a version's manifest is its identity and stays"
    assert catalog.fingerprint(other) != fingerprint
    kinds = [entry.kind for entry in catalog.entries()]
    assert kinds.count("version.referenced") == 1
    catalog.promote(NAME, version, gate=GATE, actor="t")
    assert catalog.alias(NAME).version == version
    assert catalog.export(version, tmp_path / "out") == manifest


def test_what_is_no_reference_is_refused(world: World) -> None:
    catalog, version = world.catalog, world.push(fingerprinted=False)
    fingerprint = tiny_fingerprint(world.base, seed=5)
    said = _said(world, version, fingerprint)
    foreign = tiny_fingerprint(Digest.of(b"another base"), seed=5)
    size = len(catalog.entries())
    for envelope in (
        signer("engine").sign(REFERENCE, said.canonical()),
        signer("trainer").sign(REPORT, said.canonical()),
    ):
        with pytest.raises(SignatureInvalid):
            catalog.file_reference(envelope, fingerprint, actor="t")
    with pytest.raises(ReferenceInvalid):
        catalog.file_reference(_signed(said), tiny_fingerprint(world.base, seed=6), actor="t")
    elsewhere = said.model_copy(update={"base": Digest.of(b"another base")})
    with pytest.raises(ReferenceInvalid):
        catalog.file_reference(_signed(elsewhere), fingerprint, actor="t")
    with pytest.raises(FingerprintInvalid):
        catalog.file_reference(_signed(_said(world, version, foreign)), foreign, actor="t")
    for endless in endless_fingerprints(world.base):
        with pytest.raises(FingerprintInvalid, match="at most"):
            catalog.file_reference(_signed(_said(world, version, endless)), endless, actor="t")
    for change in ({"adapter": "another"}, {"version": Digest.of(b"none")}):
        with pytest.raises(VersionNotFound):
            catalog.file_reference(_signed(said.model_copy(update=change)), fingerprint, actor="t")
    assert catalog.fingerprint(version) is None
    assert len(catalog.entries()) == size


def test_a_fingerprint_is_for_ever(world: World) -> None:
    catalog, own, revoked = world.catalog, world.push(seed=1), world.push(seed=2, fingerprinted=False)
    late = world.push(seed=3, fingerprinted=False)
    one, two = tiny_fingerprint(world.base, seed=5), tiny_fingerprint(world.base, seed=6)
    catalog.file_reference(_signed(_said(world, late, one)), one, actor="t")
    for version in (own, late):
        with pytest.raises(AlreadyExists):
            catalog.file_reference(_signed(_said(world, version, two)), two, actor="t")
    catalog.revoke(revoked, reason="no", actor="t")
    with pytest.raises(VersionRevoked):
        catalog.file_reference(_signed(_said(world, revoked, one)), one, actor="t")
    assert catalog.fingerprint(late) == one
