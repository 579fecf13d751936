from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.catalog.errors import RouteInvalid
from registry.catalog.routes import _ambiguous
from registry.digests import Digest
from registry.errors import PolicyNotFound
from registry.models import Route
from tests.support.registries import World, route

POLICY = Digest.of(b"policy")


def _when(name: str, **when: str) -> Route:
    return route(POLICY, name=name, when={f"x-{header}": value for header, value in when.items()})


def test_all_routes_or_none(world: World) -> None:
    policy = world.policy()
    good = [route(policy), route(policy, name="v3", when={"x-policy-version": "v3"})]
    world.catalog.replace_routes("bank_a", good, actor="test")
    assert world.catalog.routes("bank_a") == tuple(good)
    size = world.catalog.snapshot().size
    world.catalog.replace_routes("bank_a", good, actor="test")
    assert world.catalog.snapshot().size == size
    with pytest.raises(RouteInvalid):
        world.catalog.replace_routes("bank_a", [good[0], route(policy, name="other")], actor="test")
    assert world.catalog.routes("bank_a") == tuple(good)
    world.catalog.replace_routes("bank_a", good[1:], actor="test")
    assert world.catalog.routes("bank_a") == tuple(good[1:])
    assert world.catalog.routes("retail_b") == ()
    world.catalog.replace_routes("bank_a", [], actor="test")
    assert world.catalog.snapshot().routes == ()


def test_policies_are_the_tenants_own(world: World) -> None:
    foreign = world.policy("retail_b")
    answers = []
    for policy in (foreign, Digest.of(b"nothing")):
        with pytest.raises(PolicyNotFound) as refused:
            world.catalog.replace_routes("bank_a", [route(policy)], actor="test")
        answers.append(refused.value.message.replace(policy, "…"))
    assert answers[0] == answers[1]  # "not yours" and "does not exist" are the same answer


def test_a_route_of_another_tenant_is_refused(world: World) -> None:
    policy = world.policy("retail_b")
    with pytest.raises(RouteInvalid) as refused:
        world.catalog.replace_routes("retail_b", [route(policy)], actor="test")
    assert "bank_a" not in refused.value.message


@pytest.mark.parametrize(
    "when",
    [
        {"x-tenant-id": "bank_a"},
        {"X-Region": "eu"},
        {"authorization": "x"},
        {"x-": "v"},
        {"x--a": "v"},
        {"x-a_b": "v"},
        {"x-a\n": "v"},
        {"x-" + "a" * 63: "v"},
        {"x-a": ""},
        {"x-a": " v"},
        {"x-a": "v "},
        {"x-a": "v\r\nx"},
        {"x-a": "é"},
        {"x-a": "v" * 257},
        {f"x-{number}": "v" for number in range(17)},
    ],
)
def test_conditions_that_no_header_can_meet_safely(world: World, when: dict[str, str]) -> None:
    with pytest.raises(RouteInvalid):
        world.catalog.replace_routes("bank_a", [route(world.policy(), when=when)], actor="test")


@pytest.mark.parametrize(
    ("one", "other", "ambiguous"),
    [
        ({}, {}, True),
        ({}, {"a": "1"}, False),
        ({"a": "1"}, {"a": "2"}, False),
        ({"a": "1"}, {"a": "1"}, True),
        ({"a": "1"}, {"b": "1"}, True),
        ({"a": "1", "b": "1"}, {"a": "1", "b": "2"}, False),
        ({"a": "1", "b": "1"}, {"a": "1", "c": "2"}, True),
        ({"a": "1", "b": "1"}, {"a": "2", "c": "2"}, False),
    ],
)
def test_which_pairs_are_ambiguous(one: dict[str, str], other: dict[str, str], *, ambiguous: bool) -> None:
    assert _ambiguous(_when("one", **one), _when("other", **other)) is ambiguous


def test_another_model_is_no_rival() -> None:
    other = _when("other").model_copy(update={"model": "writer"})
    assert not _ambiguous(_when("one"), other)


def _best(routes: Sequence[Route], headers: dict[str, str]) -> list[str]:
    """The routes that a router could choose: those that match with the most conditions."""
    matching = [
        route for route in routes if all(headers.get(key) == value for key, value in route.when.items())
    ]
    most = max((len(route.when) for route in matching), default=0)
    return [route.name for route in matching if len(route.when) == most]


conditions = st.dictionaries(st.sampled_from(["x-a", "x-b", "x-c"]), st.sampled_from(["1", "2"]))


@given(st.lists(conditions, max_size=6), conditions)
def test_unambiguous_routes_leave_no_choice(whens: list[dict[str, str]], headers: dict[str, str]) -> None:
    routes = [route(POLICY, name=f"r{number}", when=when) for number, when in enumerate(whens)]
    pairs = [(one, two) for at, one in enumerate(routes) for two in routes[at + 1 :]]
    if not any(_ambiguous(one, two) for one, two in pairs):
        assert len(_best(routes, headers)) <= 1


@given(conditions, conditions)
def test_ambiguous_routes_have_a_request_that_both_match(one: dict[str, str], two: dict[str, str]) -> None:
    routes = [route(POLICY, name="one", when=one), route(POLICY, name="two", when=two)]
    if _ambiguous(*routes):
        assert _best(routes, one | two) == ["one", "two"]
