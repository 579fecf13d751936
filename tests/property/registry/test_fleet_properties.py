"""Who belongs where: for any fleet, and while it changes."""

import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from hypothesis import example, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from registry.balance import BOUND, MOVES
from registry.feed import State
from registry.fleet import assigned
from registry.homes import given
from registry.models import AliasState, Canary, EngineState, Former, Isolation, Level, Tenant
from registry.promotions import Preparation
from tests.support.fleets import (
    BASE,
    NOW,
    OTHER_BASE,
    World,
    engine,
    live,
    published,
    state,
    tenant,
    version,
)

K = TypeVar("K")
V = TypeVar("V")
_RANKS = (8, 16, 64, None)


@st.composite
def fleets(draw: st.DrawFn, slot_ranks: tuple[int | None, ...] = (None, None, 4, 8)) -> State:
    """Up to six engines of two bases, four tenants on any level, and some slots that were attested before."""
    count = draw(st.integers(1, 6))
    engines = [
        engine(
            f"engine-{number}",
            names=draw(st.integers(1, 6)),
            max_loras=draw(st.integers(1, 4)),
            max_rank=draw(st.sampled_from(_RANKS)),
            slot_rank=draw(st.sampled_from(slot_ranks)),
            base=draw(st.sampled_from((BASE, BASE, OTHER_BASE))),
            up=draw(st.integers(0, 4)) > 0,
        )
        for number in range(count)
    ]
    free = [each.engine for each in engines]
    tenants = []
    for name in ("anna", "bert", "carl", "dora"):
        level = draw(st.sampled_from(tuple(Level)))
        mine: tuple[str, ...] = ()
        if level in (Level.DEDICATED, Level.MERGED):
            if not free:
                level = Level.SHARED
            else:
                mine = tuple(free.pop() for _ in range(draw(st.integers(1, min(2, len(free))))))
        isolation = Isolation(level=level, engines=mine, replicas=draw(st.integers(1, 3)))
        tenants.append(Tenant(id=name, display_name=name, isolation=isolation))
    versions = [
        published(
            f"{owner.id}-{number}",
            owner.id,
            rank=draw(st.sampled_from((4, 8, 12, 40))),
            base=draw(st.sampled_from((BASE, OTHER_BASE))),
        )
        for owner in tenants
        for number in range(draw(st.integers(0, 4)))
    ]
    slots = {
        each.engine: [
            known.version
            for known in versions
            if each.up and known.base == each.base and known.rank <= (each.slot_rank or known.rank)
            if draw(st.integers(0, 3)) == 0
        ][: each.names]
        for each in engines
    }
    return state(engines=engines, tenants=tenants, versions=versions, slots=slots)


@drawn(fleets())
def test_no_engine_is_given_more_than_it_holds_and_only_what_it_can_hold(known: State) -> None:
    for name, share in assigned(known, NOW).items():
        home = known.engines[name]
        assert len(share.versions) <= (home.names or home.max_loras)
        assert len({each.version for each in share.versions}) == len(share.versions)
        for each in share.versions:
            if not each.leaving:
                found = known.versions[each.version]
                assert home.up
                assert found.base == home.base
                assert share.merged == each.version or found.rank <= (home.max_rank or found.rank)
        if share.merged is None:
            assert sum(each.pinned for each in share.versions) < home.max_loras


@drawn(fleets())
def test_an_engine_that_was_given_to_a_tenant_is_given_nothing_of_others(known: State) -> None:
    owners = given(known.tenants.values())
    for name, share in assigned(known, NOW).items():
        assert share.exclusive == owners.get(name)
        for each in share.versions:
            owner = known.versions[each.version].tenant
            isolation = known.tenants[owner].isolation
            if each.leaving:
                # Only where it was seen, and for as long as it has nothing where it belongs.
                assert each.version in known.slots[name]
            else:
                assert owners.get(name) in (None, owner)
                if isolation.level is Level.DEDICATED and name not in isolation.engines:
                    # Under way, and there is no engine of its own to go to yet.
                    holders = [home for home, slots in known.slots.items() if each.version in slots]
                    assert holders
                    assert not set(holders) & set(isolation.engines)


@drawn(fleets(), st.randoms(use_true_random=False))
def test_the_order_in_which_a_state_was_built_decides_nothing(known: State, chance: random.Random) -> None:
    def mixed(table: Mapping[K, V]) -> dict[K, V]:
        pairs = list(table.items())
        chance.shuffle(pairs)
        return dict(pairs)

    other = replace(
        known,
        tenants=mixed(known.tenants),
        aliases=mixed(known.aliases),
        versions=mixed(known.versions),
        engines=mixed(known.engines),
        slots={name: mixed(held) for name, held in mixed(known.slots).items()},
    )
    assert assigned(other, NOW) == assigned(known, NOW)


def _full_of_another() -> State:
    """carl's engine was given to it while its one name was taken by bert's adapter, which no engine is left
    for: it has to start again before it holds anything of carl's."""
    engines = [engine(f"engine-{number}", names=1, max_loras=1, up=number == 0) for number in range(2)]
    return state(
        engines=engines,
        tenants=[tenant("bert"), tenant("carl", Level.DEDICATED, "engine-0", "engine-1", replicas=1)],
        versions=[published("bert-0", "bert"), published("carl-0", "carl")],
        slots={"engine-0": [version("bert-0")]},
    )


@drawn(fleets(slot_ranks=(None,)))  # one that is to start afresh gives what it holds to others meanwhile
@example(_full_of_another())
def test_an_engine_that_joins_takes_a_few_at_a_time_and_nothing_moves_between_the_others(
    known: State,
) -> None:
    world = World(known, random.Random(1))
    world.settle()
    before = world.shares()
    world.state = replace(
        world.state, engines={**world.state.engines, "engine-new": engine("engine-new", names=64)}
    )
    shares = world.shares()
    taken = {each.version for each in shares["engine-new"].versions}
    moved = 0
    for name, was in before.items():
        share = shares[name]
        now = {each.version for each in share.versions if not each.leaving}
        gone = {each.version for each in was.versions if not each.leaving} - now
        assert gone <= taken or share.merged != was.merged
        gone &= set(world.state.slots.get(name, ()))  # what still loads is placed anew
        assert gone <= {each.version for each in share.versions} or share.merged != was.merged
        assert not now - {each.version for each in was.versions}
        moved += len(gone)
    assert moved <= MOVES or any(shares[name].merged != was.merged for name, was in before.items())


@st.composite
def _late(draw: st.DrawFn) -> tuple[World, int]:
    """Shared engines of one size that come up one after the other, each when all is at rest."""
    replicas = draw(st.integers(1, 3))
    owners = [tenant("anna", replicas=replicas), tenant("bert", Level.PINNED, replicas=replicas)]
    versions = [
        published(f"v{number}", draw(st.sampled_from(("anna", "anna", "bert"))))
        for number in range(draw(st.integers(1, 16)))
    ]
    sizes = draw(st.sampled_from(((64, 64), (64, 96))))
    first = engine("engine-0", names=sizes[0])
    world = World(
        state(engines=[first], tenants=owners, versions=versions), random.Random(draw(st.integers()))
    )
    return world, draw(st.integers(1, 4))


def _join(world: World, name: str, names: int, max_rank: int | None = None) -> None:
    world.state = replace(
        world.state, engines={**world.state.engines, name: engine(name, names=names, max_rank=max_rank)}
    )


def _counts(world: World) -> dict[str, int]:
    return {name: len(share.versions) for name, share in world.shares().items()}


@settings(max_examples=25, deadline=None)
@drawn(_late())
def test_engines_that_come_later_get_their_share_and_then_nothing_moves(drawn: tuple[World, int]) -> None:
    world, more = drawn
    world.settle()
    for number in range(1, more + 1):
        before = {name: set(held) for name, held in world.state.slots.items()}
        _join(world, f"engine-{number}", names=64)
        _settle_gently(world)
        for name, held in before.items():
            assert set(world.state.slots[name]) <= held, "something moved between those that were there"
        total = sum(_counts(world).values())
        assert _counts(world)[f"engine-{number}"] <= -(-total // (number + 1))
        _even(world)


def _settle_gently(world: World) -> None:
    """To rest, and on the way nobody is without an engine and few move at a time."""
    rounds = 0
    while world.step():
        _nobody_is_without(world)
        for name, share in world.shares().items():
            coming = {each.version for each in share.versions} - set(world.state.slots.get(name, {}))
            leaving = {
                each.version
                for other in world.shares().values()
                for each in other.versions
                if each.leaving and each.version in coming
            }
            assert len(leaving) <= MOVES
        rounds += 1
        assert rounds < 500, "it never comes to rest"
    assert not any(each.leaving for share in world.shares().values() for each in share.versions)


def _even(world: World) -> None:
    shares = world.shares()
    pins = {name: sum(each.pinned for each in share.versions) for name, share in shares.items()}
    for gives in shares.values():
        for taker, takes in shares.items():
            held = {each.version for each in takes.versions}
            room = pins[taker] < world.state.engines[taker].max_loras - 1
            could = [
                each for each in gives.versions if each.version not in held and (room or not each.pinned)
            ]
            assert not could or len(gives.versions) <= BOUND * (len(takes.versions) + 1)


@settings(max_examples=15, deadline=None)
@drawn(_late(), st.data())
def test_what_an_engine_has_is_no_others_to_take_while_one_starts_again(
    drawn: tuple[World, int], data: st.DataObject
) -> None:
    world, more = drawn
    for number in range(1, more + 1):
        _join(world, f"engine-{number}", names=64)
    world.settle()
    _even(world)
    victim = data.draw(st.sampled_from(sorted(world.state.engines)))
    others = {name: set(held) for name, held in world.state.slots.items() if name != victim}
    world.start_again(victim)
    down = {name: {each.version for each in share.versions} for name, share in world.shares().items()}
    for name, held in others.items():
        assert held <= down[name]
    world.settle()
    _even(world)
    assert not any(each.leaving for share in world.shares().values() for each in share.versions)


@settings(max_examples=60, deadline=None)
@drawn(st.integers(1, 2), st.lists(st.sampled_from((4, 8, 12, 40)), min_size=1, max_size=12), st.data())
def test_boots_that_are_too_small_end_one_at_a_time_and_nobody_is_without(
    replicas: int, ranks: list[int], data: st.DataObject
) -> None:
    """With and without a second engine for each version."""
    count = data.draw(st.integers(2, 4))
    small = [
        engine(f"engine-{number}", names=64, max_rank=64, slot_rank=data.draw(st.sampled_from((4, 8, 16))))
        for number in range(count)
    ]
    versions = [published(f"v{number}", "anna", rank=rank) for number, rank in enumerate(ranks)]
    fitting = [each for each in versions if each.rank <= 4]
    world = World(
        state(
            engines=small,
            tenants=[tenant("anna", replicas=replicas)],
            versions=versions,
            aliases=[live(each.adapter, "anna") for each in fitting],
        ),
        data.draw(st.randoms(use_true_random=False)),
    )
    world.settle()
    aliases = {("anna", each.adapter, "live"): live(each.adapter, "anna") for each in versions}
    world.state = replace(world.state, aliases=aliases)
    served = {each.version for each in fitting}
    rounds = 0
    while world.step():
        assert all(world.holders(each) for each in served)
        assert len(world.pending) <= 1
        rounds += 1
        assert rounds < 500, "it never comes to rest"
    for each in versions:
        assert len(world.holders(each.version)) == replicas


def test_what_fits_into_an_engine_for_small_adapters_leaves_the_large_ones() -> None:
    versions = [published(f"v{number}", "anna", rank=8) for number in range(20)]
    versions.append(published("large", "anna", rank=64))
    owner = tenant("anna", replicas=1)
    large = engine("large", names=32, max_rank=64)
    world = World(state(engines=[large], tenants=[owner], versions=versions), random.Random(1))
    world.settle()
    _join(world, "small", names=20, max_rank=8)
    _settle_gently(world)
    assert len(world.state.slots["small"]) == 16, "up to 0.8 of its names"
    assert version("large") in world.state.slots["large"]


@drawn(st.integers(1, 40), st.integers(2, 8), st.integers(1, 3))
def test_without_any_slots_a_new_engine_only_takes_and_one_that_leaves_only_gives(
    count: int, engines: int, replicas: int
) -> None:
    owner = tenant("anna", replicas=replicas)
    versions = [published(f"v{number}", "anna") for number in range(count)]
    homes = [engine(f"engine-{number}", names=64) for number in range(engines)]
    few = assigned(state(engines=homes[1:], tenants=[owner], versions=versions), NOW)
    many = assigned(state(engines=homes, tenants=[owner], versions=versions), NOW)
    for home in homes[1:]:
        before = {each.version for each in few[home.engine].versions}
        assert {each.version for each in many[home.engine].versions} <= before
    for each in versions:
        held = sum(each.version in {one.version for one in share.versions} for share in many.values())
        assert held == min(replicas, engines)


def _homes(known: State) -> dict[str, list[EngineState]]:
    return {
        each.adapter: [known.engines[name] for name, slots in known.slots.items() if each.version in slots]
        for each in known.versions.values()
    }


_LEVELS = st.sampled_from(tuple(Level))


@settings(max_examples=60)
@drawn(st.lists(st.tuples(_LEVELS, st.integers(1, 3), st.integers(0, 30)), min_size=1, max_size=6), st.data())
def test_no_move_between_levels_leaves_a_live_version_without_an_engine(
    moves: list[tuple[Level, int, int]], data: st.DataObject
) -> None:
    """Five engines; one tenant moves up and down, also when a move is not done yet, another one stays."""
    names = [f"engine-{number}" for number in range(5)]
    versions = [published("one", "anna"), published("two", "anna"), published("other", "bert")]
    world = World(
        state(
            engines=[engine(name) for name in names],
            tenants=[tenant("anna"), tenant("bert")],
            versions=versions,
        ),
        data.draw(st.randoms(use_true_random=False)),
    )
    world.settle()
    assert all(_homes(world.state).values())
    for level, count, steps in moves:
        chosen = tuple(data.draw(st.permutations(names))[:count])
        if level in (Level.SHARED, Level.PINNED):
            chosen = ()
        world.change(tenant("anna", level, *chosen))
        _nobody_is_without(world)
        for _ in range(steps):
            world.step()
            _nobody_is_without(world)
    rounds = 0
    while world.step():
        _nobody_is_without(world)
        rounds += 1
        assert rounds < 500, "it never comes to rest"
    _at_rest(world, moves[-1][0])


def _nobody_is_without(world: World) -> None:
    shares = world.shares()
    for each in world.state.versions.values():
        kept = [
            home.engine
            for home in world.holders(each.version)
            if home.up
            and shares[home.engine].merged == home.merged
            and each.version in {one.version for one in shares[home.engine].versions}
        ]
        assert kept, f"{each.adapter} is served by nobody"


def _at_rest(world: World, level: Level) -> None:
    mine = world.state.tenants["anna"].isolation.engines
    for name, share in world.shares().items():
        owners = {world.state.versions[each.version].tenant for each in share.versions}
        assert not any(each.leaving for each in share.versions)
        assert "bert" not in owners or name not in mine
        assert not share.afresh
        if level is Level.DEDICATED:
            assert "anna" not in owners or name in mine
            loaded = {world.state.versions[each].tenant for each in world.loaded.get(name, ())}
            assert name not in mine or loaded <= {"anna"}, "others' adapters are still in its memory"
        assert (share.merged is not None) == (level is Level.MERGED and name in mine)
    if level is Level.MERGED:
        for text in ("one", "two"):
            on = {home.engine for home in world.holders(version(text))}
            assert on <= set(mine) or len(mine) == 1
    if level is Level.DEDICATED:
        assert {home.engine for home in world.holders(version("one"))} <= set(mine)


def test_the_most_important_come_first_when_there_is_not_room_for_all() -> None:
    names = ("a-shadow", "b-former", "c-canary", "d-live", "z-pinned")
    alias = AliasState(
        tenant="anna",
        adapter="d-live",
        alias="live",
        version=version("d-live"),
        epoch=2,
        canaries=(Canary(version=version("c-canary"), percent=10),),
        shadows=(version("a-shadow"),),
        former=Former(version=version("b-former"), epoch=1),
    )
    known = state(
        engines=[engine("engine-0", names=4)],
        tenants=[tenant("anna"), tenant("bert", Level.PINNED)],
        versions=[*(published(name, "anna") for name in names[:4]), published("z-pinned", "bert")],
        aliases=[alias, live("z-pinned", "bert")],
    )
    found = [each.why for each in assigned(known, NOW)["engine-0"].versions]
    assert found == ["live", "live", "canary", "former"]
    assert assigned(known, NOW)["engine-0"].versions[0].version == version("z-pinned")


def test_a_prepared_version_is_wanted_until_its_alias_moves_or_its_time_is_over() -> None:
    preparation = Preparation(
        tenant="anna",
        adapter="new",
        alias="live",
        version=version("new"),
        epoch=1,
        until="2026-01-01T00:10:00Z",
    )
    moved = live("old", "anna").model_copy(update={"adapter": "new"})
    known = state(
        engines=[engine("engine-0")],
        tenants=[tenant("anna")],
        versions=[published("old", "anna"), published("new", "anna")],
        aliases=[moved],
    )
    known = replace(known, preparations={("anna", "new", "live"): preparation})
    assert [each.why for each in assigned(known, NOW)["engine-0"].versions] == ["live", "prepared"]
    late = NOW + timedelta(minutes=10)
    assert [each.why for each in assigned(known, late)["engine-0"].versions] == ["live"]
    known = replace(known, aliases={("anna", "new", "live"): moved.model_copy(update={"epoch": 2})})
    assert [each.why for each in assigned(known, NOW)["engine-0"].versions] == ["live"]


def test_an_adapter_goes_to_the_engines_for_the_smallest_rank_that_holds_it() -> None:
    known = state(
        engines=[
            engine("large", max_rank=64),
            engine("small-1", max_rank=8),
            engine("small-2", max_rank=8, names=1),
            engine("unknown", max_rank=None),
        ],
        tenants=[tenant("anna")],
        versions=[
            published("r4", "anna", rank=4),
            published("r16", "anna", rank=16),
            published("r8", "anna"),
        ],
    )
    shares = assigned(known, NOW)
    held = {name: {each.version for each in share.versions} for name, share in shares.items()}
    assert held["small-1"] == {version("r4"), version("r8")}
    assert len(held["small-2"]) == 1
    assert version("r16") in held["large"]
    assert version("r16") in held["unknown"]
    # The one for which the small engines had no second place.
    assert len(held["large"]) == 2


def test_a_tenant_of_its_own_engines_is_not_limited_to_device_slots() -> None:
    versions = [published(f"v{number}", "anna") for number in range(10)]
    known = state(
        engines=[engine("engine-0", names=32, max_loras=2)],
        tenants=[tenant("anna", Level.DEDICATED, "engine-0")],
        versions=versions,
    )
    assert len(assigned(known, NOW)["engine-0"].versions) == 10


def test_nobody_else_answers_for_a_tenant_whose_own_engine_is_down() -> None:
    for level in (Level.DEDICATED, Level.MERGED):
        known = state(
            engines=[engine("engine-0", up=False), engine("engine-1")],
            tenants=[tenant("anna", level, "engine-0")],
            versions=[published("one", "anna")],
        )
        assert assigned(known, NOW)["engine-1"].versions == ()


def test_a_suspended_tenant_and_a_revoked_version_want_nothing() -> None:
    known = state(
        engines=[engine("engine-0")],
        tenants=[tenant("anna").model_copy(update={"suspended": True}), tenant("bert")],
        versions=[published("one", "anna"), published("two", "bert").model_copy(update={"revoked": True})],
    )
    assert assigned(known, NOW)["engine-0"].versions == ()
