"""What every catalog must do, whatever it is on and wherever: the main job, told as the callers tell it."""

from pathlib import Path

import pytest

from registry.catalog.errors import EngineNeeded, EngineNotFound, EngineReplaced
from registry.digests import Digest
from registry.errors import GateRefused, TenonError
from registry.feed import Delta, Snapshot, State
from registry.keys import opens
from registry.models import Role, Withdrawal
from registry.names import AdapterName, Ref
from tests.support.registries import BOOT, GATE, NAME, World, attested, record_head, route, withdrawn
from tests.support.remote import ServedWorld


def test_from_nothing_to_an_attested_answerer_and_back(world: World, tmp_path: Path) -> None:
    catalog = world.catalog
    key, secret = catalog.issue_key("bank_a", role=Role.INFERENCE, actor="admin")
    policy = world.policy(schema='{"type": "object", "properties": {"approve": {"type": "boolean"}}}')
    catalog.publish_routing("bank_a", routes=[route(policy)], actor="admin")

    first = world.push(seed=1)
    with pytest.raises(GateRefused):
        catalog.promote(NAME, first, gate=GATE, actor="trainer")
    catalog.file_report(world.report(first), actor="trainer")
    catalog.promote(NAME, first, gate=GATE, expect_epoch=0, actor="trainer")
    catalog.announce(world.engine(), actor="engine-0")
    catalog.attest(world.attestation(first), actor="engine-0")

    snapshot = catalog.changes(-1)
    assert isinstance(snapshot, Snapshot)
    (alias,), (slot,) = snapshot.aliases, snapshot.slots
    (stored,) = [key for key in snapshot.keys if key.tenant]  # behind a URL there is an admin's too
    assert alias.version == slot.version == first == catalog.resolve(Ref.parse("bank_a/assistant:live"))
    assert stored == key
    assert opens(secret, stored)

    second = world.evaluated(seed=2)
    catalog.promote(NAME, second, gate=GATE, expect_epoch=1, actor="trainer")
    assert catalog.rollback(NAME, actor="admin").version == first
    catalog.revoke(first, reason="its data was wrong", actor="admin")
    catalog.record_head(record_head(12), actor="router-0")

    delta = catalog.changes(snapshot.size, snapshot.root)
    assert isinstance(delta, Delta)
    newest = State.of(snapshot).after(delta).snapshot()
    assert newest == catalog.snapshot()
    assert newest.slots == ()
    assert {state.version: state.revoked for state in newest.versions} == {first: True, second: False}
    catalog.export(second, tmp_path / "pulled")
    assert catalog.verify(blobs=True) == []
    assert len(catalog.entries(0, 1000)) == newest.size == catalog.snapshot().size


def test_every_change_is_one_entry_with_its_actor(world: World) -> None:
    size = world.catalog.snapshot().size
    version = world.promoted()
    world.catalog.announce(world.engine(), actor="engine-0")
    world.catalog.attest(world.attestation(version), actor="engine-0")
    key, _ = world.catalog.issue_key("bank_a", role=Role.TRAINER, actor="admin")
    world.catalog.revoke_key(key.id, actor="admin")
    policy = world.policy()
    world.catalog.publish_routing("bank_a", routes=[route(policy)], actor="admin")
    world.catalog.record_head(record_head(1), actor="router-0")
    world.catalog.revoke(version, reason="x", actor="admin")
    expected = [
        ("version.pushed", "test"),
        ("report.filed", "test"),
        ("alias.moved", "test"),
        ("engine.announced", "engine-0"),
        ("engine.attested", "engine-0"),
        ("key.issued", "admin"),
        ("key.revoked", "admin"),
        ("policy.published", "test"),
        ("routing.published", "admin"),
        ("records.head", "router-0"),
        ("version.revoked", "admin"),
    ]
    if isinstance(world, ServedWorld):  # a registry behind a URL believes the key, not the word
        expected = [(kind, world.actor if actor in ("test", "admin") else actor) for kind, actor in expected]
    assert [(entry.kind, entry.actor) for entry in world.catalog.entries(size)] == expected


def test_an_engine_withdraws_only_what_another_one_serves(world: World) -> None:
    catalog = world.catalog
    first, second = world.promoted(), world.promoted(NAME, seed=1)
    for engine, versions in (("engine-0", (first, second)), ("engine-1", (first,))):
        catalog.announce(world.engine(engine), actor=engine)
        for version in versions:
            catalog.attest(attested(world.finding(version, engine=engine)), actor=engine)

    def said(*versions: Digest, engine: str = "engine-0", boot: str = BOOT) -> Withdrawal:
        return Withdrawal(engine=engine, boot=boot, versions=tuple(sorted(versions)))

    def slots() -> set[tuple[str, Digest]]:
        return {(slot.engine, slot.version) for slot in catalog.snapshot().slots}

    before = catalog.snapshot()
    with pytest.raises(EngineNeeded):  # whole or not at all: the first alone would go
        catalog.withdraw(withdrawn(said(first, second)), actor="engine-0")
    with pytest.raises(EngineReplaced):
        catalog.withdraw(withdrawn(said(first, boot="another-boot")), actor="engine-0")
    with pytest.raises(EngineNotFound):
        catalog.withdraw(withdrawn(said(first, engine="engine-9")), actor="engine-9")
    assert catalog.snapshot() == before
    catalog.withdraw(withdrawn(said(first)), actor="engine-0")
    assert slots() == {("engine-0", second), ("engine-1", first)}
    delta = catalog.changes(before.size, before.root)
    assert isinstance(delta, Delta)
    assert delta.slots.keys() == {"engine-0"}
    assert State.of(before).after(delta).snapshot() == catalog.snapshot()
    size = catalog.snapshot().size
    catalog.withdraw(withdrawn(said(first)), actor="engine-0")  # it is not listed any more
    assert catalog.snapshot().size == size
    with pytest.raises(EngineNeeded):  # of two that count on each other, only one can go
        catalog.withdraw(withdrawn(said(first, engine="engine-1")), actor="engine-1")
    catalog.attest(attested(world.finding(first)), actor="engine-0")
    assert ("engine-0", first) not in slots(), "what was seen before does not bring it back"
    later = world.finding(first).model_copy(update={"observed_at": "2026-01-01T00:01:00.000000Z"})
    catalog.attest(attested(later), actor="engine-0")
    assert ("engine-0", first) in slots()
    catalog.announce(world.engine("engine-1", up=False), actor="engine-1")
    with pytest.raises(EngineNeeded):
        catalog.withdraw(withdrawn(said(first)), actor="engine-0")
    assert catalog.verify(blobs=True) == []


def test_tenants_cannot_reach_each_other(world: World) -> None:
    theirs = AdapterName("retail_b", "assistant")
    mine, foreign = world.promoted(seed=1), world.promoted(theirs, seed=1)
    assert mine != foreign  # the same weights: the tenant is part of the identity
    for attempt in (
        lambda: world.catalog.promote(NAME, foreign, gate=GATE, alias="canary", actor="test"),
        lambda: world.catalog.resolve(Ref(NAME, version=foreign)),
        lambda: world.catalog.file_report(world.report(foreign), actor="test"),
        lambda: world.catalog.publish_routing(
            "bank_a", routes=[route(world.policy("retail_b"))], actor="test"
        ),
    ):
        with pytest.raises(TenonError) as refused:
            attempt()
        assert refused.value.status == 404
        assert "retail_b" not in refused.value.message
    assert [name.tenant for name in world.catalog.adapters("bank_a")] == ["bank_a"]
    assert world.catalog.history(theirs)[0].version == foreign
