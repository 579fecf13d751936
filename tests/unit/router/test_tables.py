"""Compiling a snapshot: whatever does not fit together is left out and named."""

from datetime import UTC, datetime
from typing import Any

import pytest

from registry.digests import Digest
from registry.errors import FeedMismatch
from registry.feed import Snapshot, difference
from registry.models import AliasState, Canary, Key, Role, Slot
from router.errors import AdapterNotReady, RouteUnusable
from router.headers import Headers
from router.resolution import choose, resolve
from router.tables import Principal, Tables, advance, compile_tables
from router.testing import BASE, Scene

BANK = Principal("bank_a", "k", Role.INFERENCE)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def scene() -> Scene:
    found = Scene()
    found.engine()
    found.serve("bank_a", {"type": "object"})
    return found


def places(tables: Tables) -> list[str]:
    (state,) = tables.state.aliases.values()
    return [place.engine for place in tables.places[state.version].places]


def target_error(scene: Scene) -> type[Exception] | None:
    tables = compile_tables(scene.snapshot())
    try:
        resolve(choose(BANK, "assistant", Headers([]), tables), tables, unit="u", now=NOW)
    except (AdapterNotReady, RouteUnusable) as error:
        return type(error)
    return None


def test_a_sound_scene_has_no_faults(scene: Scene) -> None:
    tables = compile_tables(scene.snapshot())
    assert tables.faults == ()
    assert places(tables) == ["engine-0"]
    assert tables.attested == 1
    assert tables.models("bank_a") == ["assistant"]
    assert tables.models("retail_b") == []


def test_an_alias_that_points_to_another_tenants_version_serves_nobody(scene: Scene) -> None:
    foreign = scene.version("retail_b")
    scene.attest(foreign)
    scene.aliases = [AliasState(tenant="bank_a", adapter="desk", alias="live", version=foreign, epoch=2)]
    assert "points outside its adapter" in compile_tables(scene.snapshot()).faults[0]
    assert target_error(scene) is AdapterNotReady


def test_an_alias_that_points_to_another_adapter_of_the_same_tenant(scene: Scene) -> None:
    other = scene.version("bank_a", "other")
    scene.attest(other)
    scene.aliases = [AliasState(tenant="bank_a", adapter="desk", alias="live", version=other, epoch=2)]
    assert target_error(scene) is AdapterNotReady


def test_only_this_boot_of_an_engine_that_is_up_counts(scene: Scene) -> None:
    version = scene.versions[0].version
    changes: list[dict[str, Any]] = [
        {"slots": [Slot(engine="engine-0", boot="boot-before", version=version, attestation=BASE)]},
        {"slots": [Slot(engine="engine-9", boot="boot-engine-9", version=version, attestation=BASE)]},
        {"slots": []},
        {"engines": [scene.engines[0].model_copy(update={"up": False})]},
        {"engines": [scene.engines[0].model_copy(update={"base": Digest.of(b"another")})]},
        {"engines": [scene.engines[0].model_copy(update={"url": "file:///etc"})]},
        {"engines": []},
        {"versions": [scene.versions[0].model_copy(update={"revoked": True})]},
        {"versions": []},
        {"aliases": []},
    ]
    for change in changes:
        changed = Scene(**{**vars(scene), **change})
        assert target_error(changed) is AdapterNotReady, change
    assert target_error(scene) is None


def test_a_route_without_usable_policy_does_not_give_way_to_the_default(scene: Scene) -> None:
    scene.tenant("retail_b")
    broken = scene.policy("bank_a", {"type": "no such type"})
    foreign = scene.policy("retail_b", None, name="theirs")
    for policy in (broken, foreign, Digest.of(b"missing")):
        changed = Scene(**{**vars(scene), "routes": list(scene.routes)})
        changed.route("bank_a", policy, when={"x-policy-version": "v2"})
        tables = compile_tables(changed.snapshot())
        picked = choose(BANK, "assistant", Headers([(b"x-policy-version", b"v2")]), tables)
        with pytest.raises(RouteUnusable):
            resolve(picked, tables, unit="u", now=NOW)


def test_a_policy_under_a_wrong_digest_is_not_used(scene: Scene) -> None:
    (digest,) = scene.policies
    scene.policies = {digest: scene.policies[digest].model_copy(update={"json_schema": None})}
    assert target_error(scene) is RouteUnusable


def test_policies_are_compiled_once(scene: Scene) -> None:
    first = compile_tables(scene.snapshot())
    second = compile_tables(scene.snapshot(), first)
    (digest,) = scene.policies
    assert second.policies[digest] is first.policies[digest]
    assert second.policies[digest].compiled is first.policies[digest].compiled is not None


def test_keys_that_share_a_secret_open_nothing(scene: Scene) -> None:
    key = scene.keys[0]
    for twin in (
        Key(id="other", tenant="retail_b", role=Role.INFERENCE, secret_hash=key.secret_hash),
        Key(id="other", tenant="bank_a", role=Role.INFERENCE, secret_hash=key.secret_hash, revoked=True),
    ):
        scene.tenant("retail_b")
        for pair in ([key, twin], [twin, key]):
            scene.keys = pair
            tables = compile_tables(scene.snapshot())
            assert tables.key(key.secret_hash) is None
            assert tables.faults == (f"two keys share a secret: {key.id}", "two keys share a secret: other")


def test_parts_of_unknown_tenants_are_left_out(scene: Scene) -> None:
    del scene.tenants["bank_a"]
    tables = compile_tables(scene.snapshot())
    assert [fault.partition(" belongs")[0] for fault in tables.faults] == [
        f"the key {scene.keys[0].id}",
        "the routing of bank_a",
    ]


def follow(tables: Tables, before: Snapshot, after: Snapshot) -> Tables:
    delta = difference(before, after)
    assert delta is not None
    followed = advance(tables, delta)
    whole = compile_tables(after)
    assert followed.state.snapshot() == after
    assert (followed.places, followed.holders, followed.routes, followed.faults) == (
        whole.places,
        whole.holders,
        whole.routes,
        whole.faults,
    )
    return followed


def test_news_of_one_engine_leave_the_others_places_alone(scene: Scene) -> None:
    version = scene.versions[0].version
    scene.engine("engine-1", "http://engine-1")
    scene.attest(version, "engine-1")
    before = scene.snapshot()
    tables = compile_tables(before)
    assert places(tables) == ["engine-0", "engine-1"]
    scene.engines[0] = scene.engines[0].model_copy(update={"up": False})
    after = scene.snapshot()
    tables = follow(tables, before, after)
    assert places(tables) == ["engine-1"]
    scene.engines[0] = scene.engines[0].model_copy(update={"up": True})
    assert places(follow(tables, after, scene.snapshot())) == ["engine-0", "engine-1"]


def test_a_change_shares_what_it_does_not_touch(scene: Scene) -> None:
    scene.serve("retail_b")
    before = scene.snapshot()
    tables = compile_tables(before)
    scene.keys[0] = scene.keys[0].model_copy(update={"revoked": True})
    revoked = follow(tables, before, (middle := scene.snapshot()))
    assert revoked.routes is tables.routes
    assert revoked.places is tables.places
    assert revoked.holders is tables.holders
    assert revoked.policies is tables.policies
    assert revoked.state.versions is tables.state.versions
    scene.route("retail_b", scene.policy("retail_b"), model="cashier")
    routed = follow(revoked, middle, scene.snapshot())
    assert routed.models("retail_b") == ["assistant", "cashier"]
    assert routed.routes["bank_a"] is tables.routes["bank_a"]
    assert revoked.models("retail_b") == ["assistant"]  # a request that holds them still sees one state


def test_a_fault_comes_and_goes_with_the_change(scene: Scene) -> None:
    before = scene.snapshot()
    sound = scene.aliases[0]
    scene.aliases[0] = sound.model_copy(update={"canaries": (Canary(version=BASE, percent=5),)})
    faulty = follow(compile_tables(before), before, (middle := scene.snapshot()))
    assert faulty.faults == ("the alias bank_a/desk:live points outside its adapter",)
    scene.aliases[0] = sound
    assert follow(faulty, middle, scene.snapshot()).faults == ()


def test_a_key_that_gets_another_secret_loses_the_old_one(scene: Scene) -> None:
    before = scene.snapshot()
    old, new = scene.keys[0].secret_hash, Digest.of(b"another secret")
    scene.keys[0] = scene.keys[0].model_copy(update={"secret_hash": new})
    tables = follow(compile_tables(before), before, scene.snapshot())
    assert tables.key(old) is None
    assert tables.key(new) == scene.keys[0]


def test_changes_apply_only_where_they_follow(scene: Scene) -> None:
    before = scene.snapshot()
    delta = difference(before, scene.snapshot())
    assert delta is not None
    elsewhere = before.model_copy(update={"root": Digest.of(b"another log")})
    later = scene.snapshot()
    for snapshot in (elsewhere, later):
        with pytest.raises(FeedMismatch):
            advance(compile_tables(snapshot), delta)
