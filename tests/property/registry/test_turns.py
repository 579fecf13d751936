"""Tenants take turns where engines have too few names for everybody."""

import random
from dataclasses import replace

from hypothesis import given as drawn
from hypothesis import strategies as st

from registry.feed import State
from registry.fleet import assigned
from registry.models import AliasState, Level, Tenant, VersionState
from tests.support.fleets import NOW, World, engine, live, published, state, tenant, version


@st.composite
def crowds(draw: st.DrawFn) -> State:
    """As many names as tenants, or more; every tenant has one live version, some have many."""
    sizes = [draw(st.integers(1, 5)) for _ in range(draw(st.integers(1, 4)))]
    owners: list[Tenant] = []
    versions: list[VersionState] = []
    aliases: list[AliasState] = []
    for number in range(draw(st.integers(1, sum(sizes)))):
        name = f"tenant-{number}"
        level = draw(st.sampled_from((Level.SHARED, Level.SHARED, Level.PINNED)))
        owners.append(tenant(name, level, replicas=draw(st.integers(1, 3))))
        for each in range(draw(st.sampled_from((1, 1, 2, 12)))):
            versions.append(published(f"{name}-{each}", name))
            aliases.append(live(f"{name}-{each}", name))
    engines = [engine(f"engine-{number}", names=names) for number, names in enumerate(sizes)]
    slots = {
        each.engine: draw(st.permutations(versions))[: draw(st.integers(0, each.names or 0))]
        for each in engines
    }
    return state(
        engines=engines,
        tenants=owners,
        versions=versions,
        aliases=aliases,
        slots={name: [one.version for one in held] for name, held in slots.items()},
    )


def _placed(known: State) -> dict[str, int]:
    """Tenant -> how many of its versions some engine is to hold."""
    held = {each.version for share in assigned(known, NOW).values() for each in share.versions}
    found = dict.fromkeys(known.tenants, 0)
    for one in held:
        found[known.versions[one].tenant] += 1
    return found


@drawn(crowds())
def test_nobody_is_nowhere_while_there_are_names_for_one_each(known: State) -> None:
    assert min(_placed(known).values()) >= 1


@drawn(crowds())
def test_nobody_has_two_more_than_whoever_wants_more(known: State) -> None:
    """Within one level, names that are short are shared evenly."""
    shared = {
        name: each.model_copy(update={"isolation": tenant(name).isolation})
        for name, each in known.tenants.items()
    }
    known = replace(known, tenants=shared)
    wanted = dict.fromkeys(shared, 0)
    for each in known.versions.values():
        wanted[each.tenant] += 1
    found = _placed(known)
    short = [found[name] for name in shared if found[name] < wanted[name]]
    assert not short or max(found.values()) <= min(short) + 1


def test_one_tenants_aliases_push_nobody_out() -> None:
    """50 tenants with one live version each beside one with 300, on 64 names, after all engines started."""
    owners = [f"tenant-{number}" for number in range(50)]
    many = [f"many-{number}" for number in range(300)]
    known = state(
        engines=[engine("engine-0"), engine("engine-1")],
        tenants=[*map(tenant, owners), tenant("many")],
        versions=[*(published(name, name) for name in owners), *(published(name, "many") for name in many)],
        aliases=[*(live(name, name) for name in owners), *(live(name, "many") for name in many)],
    )
    assert _placed(known) == dict.fromkeys(owners, 1) | {"many": 14}


def test_what_is_attested_goes_only_where_a_name_is_needed() -> None:
    """One tenant holds every name; another comes. One version goes, and the others stay where they are."""
    mine = [f"mine-{number}" for number in range(12)]
    homes = [engine("engine-0", names=4), engine("engine-1", names=4)]
    known = state(
        engines=homes,
        tenants=[tenant("mine", replicas=1), tenant("late", replicas=1)],
        versions=[*(published(name, "mine") for name in mine), published("late", "late")],
        aliases=[*(live(name, "mine") for name in mine), live("late", "late")],
        slots={
            "engine-0": [version(name) for name in mine[:4]],
            "engine-1": [version(name) for name in mine[4:8]],
        },
    )
    shares = assigned(known, NOW)
    kept = {
        name: {each.version for each in shares[name].versions} & set(known.slots[name])
        for name in ("engine-0", "engine-1")
    }
    assert sum(map(len, kept.values())) == 7
    assert _placed(known) == {"mine": 7, "late": 1}
    world = World(known, random.Random(1))
    world.settle()
    assert world.holders(version("late"))
    assert sum(bool(world.holders(version(name))) for name in mine) == 7


def test_with_too_few_names_for_all_the_tenants_a_new_version_draws_no_better_lot() -> None:
    owners = [f"tenant-{number}" for number in range(8)]

    def lucky(generation: int) -> set[str]:
        known = state(
            engines=[engine("engine-0", names=4)],
            tenants=map(tenant, owners),
            versions=[published(f"{name}-{generation}", name) for name in owners],
        )
        return {name for name, count in _placed(known).items() if count}

    assert len(lucky(0)) == 4
    assert all(lucky(generation) == lucky(0) for generation in range(1, 8))


def test_a_pinned_version_goes_where_a_slot_can_be_kept_for_it() -> None:
    """Two engines can keep one device slot each: for two versions, whichever engine they prefer."""
    for number in range(12):
        texts = [f"{number}-a", f"{number}-b"]
        known = state(
            engines=[engine("engine-0", max_loras=2), engine("engine-1", max_loras=2)],
            tenants=[tenant("anna", Level.PINNED, replicas=1)],
            versions=[published(text, "anna") for text in texts],
        )
        shares = assigned(known, NOW).values()
        assert [[each.pinned for each in share.versions] for share in shares] == [[True], [True]], number


def test_no_engine_keeps_its_last_device_slot_for_anybody() -> None:
    for max_loras in (1, 2, 3):
        known = state(
            engines=[engine("engine-0", max_loras=max_loras)],
            tenants=[tenant("anna", Level.PINNED)],
            versions=[published(f"v{number}", "anna") for number in range(5)],
        )
        (share,) = assigned(known, NOW).values()
        assert [each.pinned for each in share.versions] == [n < max_loras - 1 for n in range(5)]
