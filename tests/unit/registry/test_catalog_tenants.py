import json

import pytest

from registry.catalog.errors import SignerInvalid
from registry.digests import Digest
from registry.errors import AlreadyExists, KeyNotFound, SignatureInvalid, TenantNotFound, UnsupportedSchema
from registry.keys import key_id, opens
from registry.models import Policy, Role, Tenant
from registry.signing.types import ATTESTATION, REPORT
from tests.support.registries import World, signer


def test_a_tenant_is_created_once(world: World) -> None:
    size = world.catalog.snapshot().size
    with pytest.raises(AlreadyExists):
        world.catalog.create_tenant(Tenant(id="bank_a", display_name="another"), actor="test")
    assert world.catalog.snapshot().size == size
    assert [tenant.id for tenant in world.catalog.tenants()] == ["bank_a", "retail_b"]


def test_a_secret_is_shown_and_never_stored(world: World) -> None:
    key, secret = world.catalog.issue_key("bank_a", role=Role.TRAINER, actor="alice")
    assert world.catalog.keys("bank_a") == (key,)
    assert world.catalog.keys("retail_b") == ()
    assert key_id(secret) == key.id
    assert opens(secret, key)
    world.database.close()  # folds the write-ahead log into the file
    hidden = secret.rpartition("_")[2]
    assert len(secret.split("_", 2)[2]) == 43
    for file in world.folder.glob("registry.db*"):
        assert hidden.encode() not in file.read_bytes()
    entry = world.catalog.entries(world.catalog.snapshot().size - 1)[0]
    assert (entry.kind, entry.subject, entry.actor) == ("key.issued", key.id, "alice")
    assert entry.body["key"]["secret_hash"] == Digest.of(secret.encode())


def test_a_revoked_key_stays_known_and_opens_nothing(world: World) -> None:
    key, secret = world.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    world.catalog.revoke_key(key.id, actor="test")
    size = world.catalog.snapshot().size
    world.catalog.revoke_key(key.id, actor="test")
    assert world.catalog.snapshot().size == size
    (revoked,) = world.catalog.keys("bank_a")
    assert revoked.revoked
    assert not opens(secret, revoked)
    assert world.catalog.snapshot().keys == (revoked,)
    with pytest.raises(KeyNotFound):
        world.catalog.revoke_key("0" * 16, actor="test")


def test_an_entropy_source_that_repeats_itself_gives_no_second_key(world: World) -> None:
    world.catalog._entropy = lambda size: b"\x01" * size
    world.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    with pytest.raises(AlreadyExists):
        world.catalog.issue_key("retail_b", role=Role.INFERENCE, actor="test")


def test_unknown_tenants(world: World) -> None:
    for ask in (
        lambda: world.catalog.keys("nobody"),
        lambda: world.catalog.routing("nobody"),
        lambda: world.catalog.routings("nobody"),
        lambda: world.catalog.prove_routing("nobody"),
        lambda: world.catalog.issue_key("nobody", role=Role.INFERENCE, actor="test"),
        lambda: world.catalog.publish_routing("nobody", routes=[], actor="test"),
        lambda: world.policy("nobody"),
    ):
        with pytest.raises(TenantNotFound):
            ask()


def test_a_signer_has_one_role(world: World) -> None:
    known = world.catalog.trusted()
    public = signer("trainer").public
    world.catalog.trust(public, actor="test")
    assert world.catalog.trusted() == known
    with pytest.raises(AlreadyExists, match="as trainer"):
        world.catalog.trust(public.model_copy(update={"role": "engine"}), actor="test")
    with pytest.raises(SignerInvalid):
        world.catalog.trust(public.model_copy(update={"id": "0" * 16}), actor="test")
    assert world.catalog.trusted() == known


def test_an_untrusted_trainer_files_nothing(world: World) -> None:
    version = world.push()
    report = world.report(version).body()
    for envelope in (
        signer("trainer", 1).sign(REPORT, report),
        signer("engine").sign(REPORT, report),
        signer("trainer").sign(ATTESTATION, report),
    ):
        with pytest.raises(SignatureInvalid):
            world.catalog.file_report(envelope, actor="test")
    assert world.catalog.reports(version) == ()


def test_a_policy_is_linted_and_published_once(world: World) -> None:
    policy = Policy(
        tenant="bank_a",
        name="p",
        json_schema=json.dumps({"type": "object", "properties": {"z": {}, "a": {}}}),
    )
    digest = world.catalog.publish_policy(policy, actor="test")
    size = world.catalog.snapshot().size
    assert world.catalog.publish_policy(policy, actor="test") == digest == policy.identity()
    assert world.catalog.snapshot().size == size
    assert list((world.catalog.policy(digest).answer_schema() or {})["properties"]) == ["z", "a"]
    with pytest.raises(UnsupportedSchema, match="uniqueItems"):
        world.policy(schema='{"uniqueItems": true}')
    assert world.catalog.snapshot().size == size
