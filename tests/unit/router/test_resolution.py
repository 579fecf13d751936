"""Authentication and routing, rule by rule, on compiled tables."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from registry.models import Role
from router.auth import authenticate
from router.errors import (
    DuplicateHeader,
    InvalidApiKey,
    MetadataRequired,
    MetadataUnmatched,
    ModelNotFound,
    RouteAmbiguous,
    RouterError,
)
from router.headers import Headers
from router.resolution import choose
from router.tables import Principal, compile_tables
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
