import pytest

from registry.catalog.errors import SignerDistrusted, SignerInvalid, SignerNotFound
from registry.digests import Digest
from registry.errors import InvalidInput, SignatureInvalid, VersionNotFound, VersionRevoked
from registry.signing.envelope import Envelope
from registry.signing.keys import SignerRole
from registry.signing.types import MANIFEST, REPORT
from tests.support.registries import World, signer


def _signed(world: World, version: Digest, role: SignerRole = "trainer", number: int = 0) -> Envelope:
    return signer(role, number).sign(MANIFEST, world.catalog.manifest(version).canonical())


def test_a_trainer_signs_a_version(anywhere: World) -> None:
    version = anywhere.push()
    envelope = _signed(anywhere, version)
    anywhere.catalog.sign_version(version, envelope, actor="test")
    size = anywhere.catalog.snapshot().size
    anywhere.catalog.sign_version(version, envelope, actor="test")
    assert anywhere.catalog.signatures(version) == (envelope,)
    assert anywhere.catalog.snapshot().size == size
    second = signer("trainer", 1)
    anywhere.catalog.trust(second.public, actor="test")
    anywhere.catalog.sign_version(version, _signed(anywhere, version, number=1), actor="test")
    assert len(anywhere.catalog.signatures(version)) == 2
    assert anywhere.catalog.verify() == []


@pytest.mark.parametrize("role", ["release", "engine", "router", "log"])
def test_nobody_else_signs_versions(world: World, role: SignerRole) -> None:
    version = world.push()
    with pytest.raises(SignatureInvalid):
        world.catalog.sign_version(version, _signed(world, version, role), actor="test")
    assert world.catalog.signatures(version) == ()


def test_what_is_signed_is_this_manifest(world: World) -> None:
    version, other = world.push(seed=1), world.push(seed=2)
    manifest = world.catalog.manifest(version).canonical()
    for envelope in (
        _signed(world, other),
        signer("trainer").sign(MANIFEST, manifest + b"\n"),
        signer("trainer").sign(REPORT, manifest),
        _signed(world, version, number=9),
    ):
        with pytest.raises(SignatureInvalid):
            world.catalog.sign_version(version, envelope, actor="test")
    with pytest.raises(VersionNotFound):
        world.catalog.sign_version(Digest.of(b"x"), _signed(world, version), actor="test")
    with pytest.raises(VersionNotFound):
        world.catalog.signatures(Digest.of(b"x"))
    world.catalog.revoke(version, reason="x", actor="test")
    with pytest.raises(VersionRevoked):
        world.catalog.sign_version(version, _signed(world, version), actor="test")


def test_a_key_id_is_only_a_hint(world: World) -> None:
    """Named is one trusted trainer, the signature is another's: it counts for the one who signed."""
    version = world.push()
    world.catalog.trust(signer("trainer", 1).public, actor="test")
    envelope = _signed(world, version, number=1)
    unnamed = Envelope.build(
        envelope.model_dump(mode="json") | {"signatures": [{"keyid": "", "sig": envelope.signatures[0].sig}]}
    )
    world.catalog.sign_version(version, unnamed, actor="test")
    (entry,) = world.catalog.entries(world.catalog.snapshot().size - 1)
    assert entry.body["signer"] == signer("trainer", 1).public.id


def test_a_distrusted_trainer_is_done(anywhere: World) -> None:
    signed, filed = anywhere.evaluated(seed=1), anywhere.push(seed=2)
    anywhere.catalog.sign_version(signed, _signed(anywhere, signed), actor="test")
    public = signer("trainer").public
    anywhere.catalog.distrust(public.id, reason="stolen", actor="alice")
    size = anywhere.catalog.snapshot().size
    anywhere.catalog.distrust(public.id, reason="again", actor="bob")
    assert anywhere.catalog.snapshot().size == size
    assert public.id not in anywhere.catalog.trusted()
    with pytest.raises(SignatureInvalid):
        anywhere.catalog.file_report(anywhere.report(filed), actor="test")
    with pytest.raises(SignatureInvalid):
        anywhere.catalog.sign_version(filed, _signed(anywhere, filed), actor="test")
    # What it said while it was trusted stays said, and the log replays.
    assert len(anywhere.catalog.reports(signed)) == len(anywhere.catalog.signatures(signed)) == 1
    assert anywhere.catalog.verify() == []
    with pytest.raises(SignerDistrusted):
        anywhere.catalog.trust(public, actor="test")
    with pytest.raises(SignerDistrusted):
        anywhere.catalog.trust(public.model_copy(update={"role": "engine"}), actor="test")


def test_distrust_needs_a_signer_and_a_reason(world: World) -> None:
    with pytest.raises(SignerNotFound):
        world.catalog.distrust("0" * 16, reason="x", actor="test")
    with pytest.raises(InvalidInput):
        world.catalog.distrust(signer("trainer").public.id, reason="", actor="test")
    with pytest.raises(SignerInvalid, match="rotate"):
        world.catalog.distrust(signer("log").public.id, reason="x", actor="test")
