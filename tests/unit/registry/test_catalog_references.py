"""A fingerprint that a trainer signs after the push."""

import math
from typing import Literal, TypeAlias

import pytest

from registry.catalog.errors import FingerprintInvalid, ReferenceInvalid, VersionUnfingerprinted
from registry.digests import Digest
from registry.errors import (
    AdapterZeroEffect,
    AlreadyExists,
    BlobNotFound,
    SignatureInvalid,
    VersionNotFound,
    VersionRevoked,
)
from registry.fingerprint import Fingerprint
from registry.references import Reference
from registry.signing import types
from registry.signing.envelope import Envelope
from tests.support.adapters import tiny_fingerprint
from tests.support.registries import GATE, NAME, World, attested, signer

Role: TypeAlias = Literal["engine", "release", "router", "trainer"]


def bare(world: World, seed: int = 0) -> Digest:
    return world.push(seed=seed, fingerprinted=False)


def said(world: World, version_: Digest, fingerprint: Fingerprint, **change: object) -> Reference:
    whole = Reference(
        tenant=NAME.tenant,
        adapter=NAME.adapter,
        version=version_,
        base=world.base,
        fingerprint=fingerprint.identity(),
    )
    return whole.model_copy(update=change)


def signed(reference: Reference, role: Role = "trainer", payload_type: str = types.REFERENCE) -> Envelope:
    return signer(role).sign(payload_type, reference.canonical())


def file(world: World, version: Digest, fingerprint: Fingerprint) -> Digest:
    return world.catalog.file_reference(
        signed(said(world, version, fingerprint)), fingerprint, actor="trainer"
    )


def test_a_referenced_version_can_be_served(world: World) -> None:
    version, fingerprint = bare(world), tiny_fingerprint(world.base, seed=5)
    world.catalog.file_report(world.report(version), actor="trainer")
    with pytest.raises(VersionUnfingerprinted):
        world.catalog.promote(NAME, version, gate=GATE, actor="t")
    assert world.catalog.fingerprint(version) is None
    for _ in range(2):
        assert file(world, version, fingerprint) == version
    assert world.catalog.fingerprint(version) == fingerprint
    world.catalog.promote(NAME, version, gate=GATE, actor="t")
    (state,) = world.catalog.snapshot().versions
    assert state.fingerprint == fingerprint.identity()
    assert world.catalog.named_blobs(NAME.tenant, [fingerprint.identity()]) == {fingerprint.identity()}
    assert world.catalog.read_blob(NAME.tenant, fingerprint.identity()) == fingerprint.canonical()
    kinds = [entry.kind for entry in world.catalog.entries()]
    assert kinds.count("version.referenced") == 1


def test_engines_attest_against_the_reference(world: World) -> None:
    version, fingerprint = bare(world), tiny_fingerprint(world.base, seed=5)
    file(world, version, fingerprint)
    world.catalog.announce(world.engine(), actor="engine-0")
    finding = world.finding(version).model_copy(update={"fingerprint": fingerprint.identity()})
    world.catalog.attest(attested(finding), actor="engine-0")
    assert [slot.version for slot in world.catalog.snapshot().slots] == [version]


def test_a_delta_tells_of_it(world: World) -> None:
    version, fingerprint = bare(world), tiny_fingerprint(world.base, seed=5)
    before = world.catalog.snapshot()
    file(world, version, fingerprint)
    news = world.catalog.changes(before.size, before.root)
    assert news is not None
    assert [state.fingerprint for state in news.versions] == [fingerprint.identity()]


def test_a_version_keeps_the_fingerprint_it_has(world: World) -> None:
    own = world.push()
    with pytest.raises(AlreadyExists):
        file(world, own, tiny_fingerprint(world.base, seed=5))
    later = bare(world, seed=3)
    file(world, later, tiny_fingerprint(world.base, seed=5))
    with pytest.raises(AlreadyExists):
        file(world, later, tiny_fingerprint(world.base, seed=6))


@pytest.mark.parametrize("role", ["engine", "release", "router"])
def test_only_a_trainer_says_so(world: World, role: Role) -> None:
    version, fingerprint = bare(world), tiny_fingerprint(world.base, seed=5)
    reference = said(world, version, fingerprint)
    for envelope in (signed(reference, role), signed(reference, payload_type=types.REPORT)):
        with pytest.raises(SignatureInvalid):
            world.catalog.file_reference(envelope, fingerprint, actor="t")
    assert world.catalog.fingerprint(version) is None


def test_what_was_signed_is_what_came(world: World) -> None:
    version, fingerprint = bare(world), tiny_fingerprint(world.base, seed=5)
    other = tiny_fingerprint(world.base, seed=6)
    for reference in (
        said(world, version, other),
        said(world, version, fingerprint, base=Digest.of(b"another base")),
    ):
        with pytest.raises(ReferenceInvalid):
            world.catalog.file_reference(signed(reference), fingerprint, actor="t")
    loose = signer("trainer").sign(types.REFERENCE, said(world, version, fingerprint).canonical() + b" ")
    with pytest.raises(ReferenceInvalid):
        world.catalog.file_reference(loose, fingerprint, actor="t")
    for change in ({"adapter": "another"}, {"tenant": "nobody"}, {"version": Digest.of(b"x")}):
        with pytest.raises(VersionNotFound):
            world.catalog.file_reference(
                signed(said(world, version, fingerprint, **change)), fingerprint, actor="t"
            )
    with pytest.raises(BlobNotFound):
        world.catalog.read_blob(NAME.tenant, fingerprint.identity())


def test_a_bad_fingerprint_or_a_revoked_version_has_no_reference(world: World) -> None:
    version = bare(world)
    foreign = tiny_fingerprint(Digest.of(b"another base"), seed=5)
    with pytest.raises(FingerprintInvalid):
        file(world, version, foreign)
    with pytest.raises(AdapterZeroEffect):
        file(
            world, version, tiny_fingerprint(world.base, seed=5).model_copy(update={"distance_to_base": 0.0})
        )
    for noise in (-0.1, 0.0):
        strange = tiny_fingerprint(world.base, seed=5).model_copy(update={"noise": {"bfloat16": noise}})
        with pytest.raises(FingerprintInvalid):
            file(world, version, strange)
    world.catalog.revoke(version, reason="no", actor="t")
    with pytest.raises(VersionRevoked):
        file(world, version, tiny_fingerprint(world.base, seed=5))


def test_infinite_noise_cannot_even_be_signed(world: World) -> None:
    strange = tiny_fingerprint(world.base, seed=5).model_copy(update={"noise": {"bfloat16": math.inf}})
    with pytest.raises(Exception, match="canonical"):
        strange.identity()
