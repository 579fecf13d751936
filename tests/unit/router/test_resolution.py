"""Authentication and routing, rule by rule, on compiled tables."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from registry.assignment import assigned
from registry.clock import stamp
from registry.models import Canary, DeclaredHeader, Role
from router.auth import authenticate
from router.errors import (
    AdapterNotReady,
    AliasExpired,
    DuplicateHeader,
    InvalidApiKey,
    MetadataRequired,
    MetadataUnmatched,
    ModelNotFound,
    RoleForbidden,
    RouteAmbiguous,
    RouterError,
    TenantSuspended,
)
from router.headers import Headers
from router.resolution import choose, resolve, unit_of
from router.tables import Live, Principal, compile_tables
from router.testing import Scene

BANK = Principal("bank_a", "k", Role.INFERENCE)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
VERSIONED = {"x-policy-version": "v3"}


def headers(*pairs: tuple[str, str]) -> Headers:
    return Headers((name.lower().encode(), value.encode()) for name, value in pairs)


def world(*conditions: Mapping[str, str]) -> Scene:
    scene = Scene()
    scene.tenant("bank_a")
    policy = scene.policy("bank_a")
    for when in conditions:
        scene.route("bank_a", policy, when=when)
    return scene


def chosen(scene: Scene, *pairs: tuple[str, str]) -> Mapping[str, str]:
    return choose(BANK, "assistant", headers(*pairs), compile_tables(scene.snapshot())).when


def test_the_default_route() -> None:
    assert chosen(world({})) == {}
    assert chosen(world({}, VERSIONED)) == {}


def test_the_most_conditions_win() -> None:
    both = {"x-policy-version": "v3", "x-region": "eu"}
    scene = world({}, VERSIONED, both)
    assert chosen(scene, ("X-Policy-Version", "v3")) == VERSIONED
    assert chosen(scene, ("X-Policy-Version", "v3"), ("X-Region", "eu")) == both


def test_an_unknown_value_never_falls_back_to_the_default() -> None:
    scene = world({}, VERSIONED)
    for value in ("v4", "", "V3", "v3, v3", " v3"):
        with pytest.raises(MetadataUnmatched) as caught:
            chosen(scene, ("X-Policy-Version", value))
        assert caught.value.facts["param"] == "x-policy-version"


def test_every_declared_header_that_is_sent_must_be_recognised() -> None:
    scene = world(VERSIONED, {"x-region": "eu"})
    with pytest.raises(MetadataUnmatched):
        chosen(scene, ("X-Policy-Version", "v3"), ("X-Region", "us"))


def test_undeclared_headers_do_not_matter() -> None:
    assert chosen(world({}), ("X-Policy-Version", "v9"), ("X-Other", "1")) == {}


def test_no_default_and_nothing_sent() -> None:
    with pytest.raises(MetadataRequired, match="x-policy-version or x-region"):
        chosen(world(VERSIONED, {"x-region": "eu"}))


def test_a_tie_is_refused() -> None:
    with pytest.raises(RouteAmbiguous):
        chosen(world({}, {}))
    with pytest.raises(RouteAmbiguous):
        chosen(world(VERSIONED, {"x-region": "eu"}), ("X-Policy-Version", "v3"), ("X-Region", "eu"))


def test_repeated_metadata_is_refused_even_if_equal() -> None:
    with pytest.raises(DuplicateHeader):
        chosen(world({}, VERSIONED), ("X-Policy-Version", "v3"), ("X-Policy-Version", "v3"))


def test_a_foreign_model_is_not_found() -> None:
    scene = world({})
    scene.serve("retail_b", model="cashier")
    tables = compile_tables(scene.snapshot())
    for model in ("cashier", "nothing"):
        with pytest.raises(ModelNotFound):
            choose(BANK, model, headers(), tables)


@pytest.mark.parametrize(
    "pairs",
    [
        [("authorization", "Bearer {0}"), ("authorization", "Bearer {0}")],
        [("authorization", "Basic {0}")],
        [("authorization", "{0}")],
        [("authorization", "Bearer {0}x")],
        [("authorization", "Bearer {0},{0}")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer \xff{0}")],
    ],
)
def test_a_malformed_authorization_is_an_invalid_key(pairs: list[tuple[str, str]]) -> None:
    scene = world({})
    secret = scene.key("bank_a")
    tables = compile_tables(scene.snapshot())
    assert authenticate(headers(("authorization", f"bearer  {secret}")), tables, NOW).tenant == "bank_a"
    with pytest.raises(InvalidApiKey):
        authenticate(headers(*((name, value.format(secret)) for name, value in pairs)), tables, NOW)


def test_a_key_stored_under_another_id_than_its_secret_names_is_invalid() -> None:
    scene = world({})
    secret = scene.key("bank_a")
    scene.keys = [scene.keys[0].model_copy(update={"id": "other"})]
    with pytest.raises(InvalidApiKey):
        authenticate(headers(("authorization", f"Bearer {secret}")), compile_tables(scene.snapshot()), NOW)


def test_a_secret_under_another_keys_id_is_invalid() -> None:
    scene = world({})
    first, second = scene.key("bank_a"), scene.key("bank_a")
    mixed = first[:20] + second[20:]
    with pytest.raises(RouterError):
        authenticate(headers(("authorization", f"Bearer {mixed}")), compile_tables(scene.snapshot()), NOW)


def keyed(scene: Scene, secret: str, now: datetime = NOW) -> Principal:
    tables = compile_tables(scene.snapshot())
    return authenticate(headers(("authorization", f"Bearer {secret}")), tables, now)


def test_a_key_ends_when_it_says() -> None:
    scene = world({})
    secret = scene.key("bank_a")
    scene.keys[0] = scene.keys[0].model_copy(update={"expires_at": stamp(NOW)})
    assert keyed(scene, secret, NOW - timedelta(microseconds=1)).tenant == "bank_a"
    with pytest.raises(InvalidApiKey):
        keyed(scene, secret)


def test_a_key_that_is_remembered_ends_when_it_says() -> None:
    scene = world({})
    shown = headers(("authorization", f"Bearer {scene.key('bank_a')}"))
    scene.keys[0] = scene.keys[0].model_copy(update={"expires_at": stamp(NOW)})
    tables = compile_tables(scene.snapshot())
    assert authenticate(shown, tables, NOW - timedelta(microseconds=1)).tenant == "bank_a"
    assert len(tables.callers) == 1
    for now in (NOW, NOW + timedelta(microseconds=1)):
        with pytest.raises(InvalidApiKey):
            authenticate(shown, tables, now)


def test_what_is_remembered_of_a_key_does_not_grow_with_its_header() -> None:
    scene = world({})
    secret = scene.key("bank_a")
    tables = compile_tables(scene.snapshot())
    for spaces in range(1, 200):
        for padded in (f"Bearer{' ' * spaces}{secret}", f"Bearer {secret}{' ' * spaces}"):
            assert authenticate(headers(("authorization", padded)), tables, NOW).tenant == "bank_a"
    assert [*tables.callers] == [f"Bearer {secret}"]


@pytest.mark.parametrize("expires_at", ["soon", "", "2026-13-01T00:00:00Z", "2027-01-01T00:00:00"])
def test_an_expiry_that_nobody_can_read_has_passed(expires_at: str) -> None:
    scene = world({})
    secret = scene.key("bank_a")
    scene.keys[0] = scene.keys[0].model_copy(update={"expires_at": expires_at})
    with pytest.raises(InvalidApiKey):
        keyed(scene, secret)


def test_a_suspended_tenant_is_named_as_such_only_to_its_own_keys() -> None:
    scene = world({})
    secret, revoked = scene.key("bank_a"), scene.key("bank_a", revoked=True)
    scene.tenants["bank_a"] = scene.tenants["bank_a"].model_copy(update={"suspended": True})
    with pytest.raises(TenantSuspended):
        keyed(scene, secret)
    elsewhere = Scene()
    stranger = [elsewhere.key("retail_b") for _ in range(4)][-1]
    for other in (revoked, stranger):
        with pytest.raises(InvalidApiKey):
            keyed(scene, other)


def test_a_key_of_no_tenant_asks_nothing() -> None:
    scene = world({})
    secret = scene.key("bank_a", Role.PLATFORM_ADMIN)
    scene.keys[0] = scene.keys[0].model_copy(update={"tenant": None})
    with pytest.raises(RoleForbidden):
        keyed(scene, secret)


def test_a_value_that_was_not_declared_is_refused_though_no_rule_looks_at_it() -> None:
    scene = world({})
    scene.headers["bank_a"] = (DeclaredHeader(name="x-industry", values=("banking",)),)
    assert chosen(scene, ("X-Industry", "banking")) == {}
    assert chosen(scene) == {}
    with pytest.raises(MetadataUnmatched, match="not a declared one") as caught:
        chosen(scene, ("X-Industry", "retail"))
    assert caught.value.facts["param"] == "x-industry"


def test_a_required_header_is_asked_for() -> None:
    scene = world({})
    scene.headers["bank_a"] = (DeclaredHeader(name="x-industry", values=("banking",), required=True),)
    with pytest.raises(MetadataRequired, match="x-industry"):
        chosen(scene)


def served(*, canary: bool = True, **changes: Any) -> Scene:
    """bank_a's alias with a stable version and a canary for half of everybody, both in service."""
    scene = Scene()
    scene.engine()
    scene.serve("bank_a")
    stable = scene.aliases[0]
    second = scene.version("bank_a")
    scene.attest(second)
    canaries = (Canary(version=second, percent=50),) if canary else ()
    scene.aliases = [stable.model_copy(update={"canaries": canaries, **changes})]
    return scene


def answerer(scene: Scene, unit: str, now: datetime = NOW) -> Live:
    tables = compile_tables(scene.snapshot())
    return resolve(choose(BANK, "assistant", headers(), tables), tables, unit=unit, now=now).live


def test_units_keep_their_version_and_the_canary_gets_its_share() -> None:
    scene = served()
    stable, canary = (version.version for version in scene.versions)
    units = [f"user {number}" for number in range(200)]
    first = [answerer(scene, unit) for unit in units]
    assert first == [answerer(scene, unit) for unit in units]
    assert {(live.version, live.canary) for live in first} == {(stable, False), (canary, True)}
    assert 70 < sum(live.canary for live in first) < 130  # 200 fair coins: beyond 4 standard deviations
    assert [live.version for live in first] == [assigned(scene.aliases[0], unit) for unit in units]


def test_a_canary_that_nobody_serves_gives_way_to_the_stable_version() -> None:
    for change in ("slots", "revoked"):
        scene = served()
        stable, canary = (version.version for version in scene.versions)
        if change == "slots":
            scene.slots = [slot for slot in scene.slots if slot.version != canary]
        else:
            scene.versions[1] = scene.versions[1].model_copy(update={"revoked": True})
        found = {(live.version, live.canary) for live in (answerer(scene, f"{n}") for n in range(20))}
        assert found == {(stable, False)}


def test_the_stable_version_gives_way_to_nothing() -> None:
    scene = served()
    stable, canary = (version.version for version in scene.versions)
    scene.slots = [slot for slot in scene.slots if slot.version == canary]
    unit = next(f"{n}" for n in range(100) if assigned(scene.aliases[0], f"{n}") == stable)
    with pytest.raises(AdapterNotReady):
        answerer(scene, unit)


def test_a_canary_of_another_tenant_is_never_asked() -> None:
    scene = served(canary=False)
    foreign = scene.version("retail_b")
    scene.attest(foreign)
    canaries = (Canary(version=foreign, percent=99),)
    scene.aliases[0] = scene.aliases[0].model_copy(update={"canaries": canaries})
    stable = scene.aliases[0].version
    assert {answerer(scene, f"{n}").version for n in range(50)} == {stable}


def test_an_expired_alias_answers_nobody() -> None:
    scene = served(expires_at=stamp(NOW))
    assert answerer(scene, "u", NOW - timedelta(microseconds=1)).places
    with pytest.raises(AliasExpired):
        answerer(scene, "u")


def test_the_unit_is_the_conversation_else_the_user_else_the_key() -> None:
    principal = Principal("bank_a", "k2", Role.INFERENCE, "k1")
    named = headers(("X-Conversation-Id", "c7"))
    assert unit_of(principal, named, "ada") == "conversation c7"
    assert unit_of(principal, headers(), "ada") == "user ada"
    assert unit_of(principal, headers(), None) == "key k1"  # rotating a key moves nobody
    assert unit_of(principal, headers(("X-Conversation-Id", "")), None) == "key k1"
    with pytest.raises(DuplicateHeader):
        unit_of(principal, headers(("X-Conversation-Id", "a"), ("X-Conversation-Id", "a")), None)
