"""Engines whose boots were made for smaller ranks than the engine takes: who gets what, and who stands in."""

from registry.feed import State
from registry.fleet import assigned
from registry.models import EngineState, Level
from tests.support.fleets import NOW, engine, published, state, tenant, version


def small(name: str, slot_rank: int = 16, *, names: int = 32) -> EngineState:
    return engine(name, max_rank=64, slot_rank=slot_rank, names=names)


def held(known: State) -> dict[str, set[str]]:
    """Engine -> adapters of the versions that it is to hold."""
    return {
        name: {known.versions[each.version].adapter for each in share.versions}
        for name, share in assigned(known, NOW).items()
    }


def test_a_large_adapter_goes_where_it_fits_already() -> None:
    for name in ("a", "b", "c"):
        engines = [small(each) if each != name else engine(each, max_rank=64) for each in ("a", "b", "c")]
        known = state(
            engines=engines,
            tenants=[tenant("anna", replicas=1)],
            versions=[published("large", "anna", rank=40)],
        )
        assert held(known)[name] == {"large"}


def test_an_engine_for_smaller_ranks_comes_before_a_boot_that_is_large_enough() -> None:
    known = state(
        engines=[small("pool-64", 32), engine("pool-32", max_rank=32, slot_rank=16)],
        tenants=[tenant("anna", replicas=1)],
        versions=[published("of-32", "anna", rank=32)],
    )
    assert held(known) == {"pool-32": {"of-32"}, "pool-64": set()}


def test_what_only_one_engine_serves_is_given_to_another_before_it_starts_afresh() -> None:
    """Of a tenant that wants one engine for each version: by itself that would hold everybody up for ever."""
    engines = [small("a"), small("b")]
    versions = [published("little", "anna"), published("large", "anna", rank=40)]
    known = state(
        engines=engines,
        tenants=[tenant("anna", replicas=1)],
        versions=versions,
        slots={"a": [version("little")], "b": []},
    )
    found = held(known)
    (grows,) = [name for name, adapters in found.items() if "large" in adapters]
    other = {"a": "b", "b": "a"}[grows]
    assert found[other] == {"little"}
    assert found[grows] == {"large", "little"} if grows == "a" else {"large"}
    full = state(
        engines=[small("a"), small("b", names=1)],
        tenants=[tenant("anna", replicas=1)],
        versions=[*versions, published("third", "anna")],
        slots={"a": [version("little"), version("large")], "b": [version("third")]},
    )
    assert held(full)["b"] == {"third"}, "nobody is pushed out for it"


def test_who_is_to_hold_a_version_and_does_not_is_no_stand_in() -> None:
    known = state(
        engines=[small("a"), small("b"), small("c")],
        tenants=[tenant("anna", replicas=2), tenant("bert", replicas=3)],
        versions=[published("odd", "anna"), published("large", "bert", rank=40)],
        slots={"a": [version("odd")]},
    )
    assert all("odd" in adapters for adapters in held(known).values())


def test_the_smallest_boot_starts_afresh_first_where_no_other_could_stand_in_for_a_larger_one() -> None:
    found = [
        held(
            state(
                engines=[small("a", 8), small("b", 16)],
                tenants=[tenant("anna", replicas=1)],
                versions=[
                    published(f"large-{number}", "anna", rank=40),
                    published("middle", "anna", rank=16),
                    published("little", "anna"),
                ],
                slots={"a": [version("little")], "b": [version("middle")]},
            )
        )
        for number in range(20)
    ]
    on_b = [each for number, each in enumerate(found) if f"large-{number}" in each["b"]]
    assert on_b, "it is a matter of names"
    for each in on_b:
        assert "middle" in each["a"], "so this one has to start afresh as well"
        assert "little" in each["b"], "and may, before the other"


def test_balance_is_no_reason_for_a_fresh_boot() -> None:
    versions = [published(f"v{number}", "anna", rank=40) for number in range(12)]
    known = state(
        engines=[engine("full", max_rank=64), small("empty")],
        tenants=[tenant("anna", replicas=1)],
        versions=versions,
        slots={"full": [each.version for each in versions]},
    )
    assert held(known)["empty"] == set()
    little = [each.model_copy(update={"rank": 8}) for each in versions]
    known = state(
        engines=list(known.engines.values()),
        tenants=list(known.tenants.values()),
        versions=little,
        slots={"full": [each.version for each in versions]},
    )
    assert held(known)["empty"]


def test_nobody_stands_in_for_a_tenant_on_an_engine_of_its_own() -> None:
    known = state(
        engines=[small("own"), small("shared")],
        tenants=[tenant("anna", Level.DEDICATED, "own", replicas=1), tenant("bert", replicas=1)],
        versions=[published("little", "anna"), published("large", "anna", rank=40)],
        slots={"own": [version("little")]},
    )
    assert held(known) == {"own": {"little", "large"}, "shared": set()}
