from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from registry.clock import stamp
from registry.digests import Digest
from registry.feed import Position, State
from registry.fleet import Assigned, Share
from registry.models import EngineState, Tenant, VersionState
from registry.promotions import Preparation
from server.engines.residency import Capacity, Held, Outlook, Plan, outlook, plan

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VERSIONS = [Digest.of(b"%d" % number) for number in range(8)]
ROOM = Capacity(names=4, rank=16)


def view(
    *versions: Digest,
    rank: int = 8,
    exclusive: str | None = None,
    merged: Digest | None = None,
    leaving: Iterable[Digest] = (),
    expected: Iterable[Digest] = (),
    elsewhere: Iterable[Digest] = (),
    away: bool = False,
) -> Outlook:
    share = Share(
        tuple(Assigned(version, rank, "live", leaving=version in leaving) for version in versions),
        exclusive=exclusive,
        merged=merged,
    )
    tenants = dict.fromkeys(VERSIONS, "bank_a")
    return Outlook(share, frozenset(expected), frozenset(elsewhere), away, tenants)


def held(*loaded: Digest, slots: Iterable[Digest] | None = None, merged: Digest | None = None) -> Held:
    return Held(loaded=set(loaded), slots=set(loaded if slots is None else slots), unfit={}, merged=merged)


def test_the_share_is_loaded_in_the_order_of_importance() -> None:
    first, second, third = VERSIONS[2], VERSIONS[0], VERSIONS[1]
    made = plan(view(first, second, third), held(), ROOM)
    assert made.load == made.serve == (first, second, third)
    assert made.renewal is None


def test_a_newcomer_never_pushes_out_what_is_loaded() -> None:
    important, loaded = VERSIONS[:2]
    made = plan(view(important, loaded), held(loaded), replace(ROOM, names=1))
    assert made.serve == (loaded,)
    assert "all 1 names" in made.unplaced[important]
    assert made.renewal is None, "a fresh boot would hold no more"


def test_a_high_rank_and_an_unfit_version_are_reported_and_take_no_name() -> None:
    unfit, good = VERSIONS[:2]
    made = plan(view(unfit, good), replace(held(), unfit={unfit: "no fingerprint"}), replace(ROOM, names=1))
    assert made.load == (good,)
    assert made.unplaced == {unfit: "no fingerprint"}
    assert plan(view(good, rank=64), held(), ROOM).unplaced == {good: "its rank 64 is above the engine's 16"}


def test_a_boot_that_is_too_small_waits_for_the_others_and_starts_afresh() -> None:
    large, served = VERSIONS[:2]
    small = Capacity(names=4, rank=16, bound=64)
    wanted = Share((Assigned(large, 40, "prepared"), Assigned(served, 8, "live")))

    def found(*, elsewhere: Iterable[Digest] = ()) -> Plan:
        return plan(replace(view(elsewhere=elsewhere), share=wanted), held(served), small)

    for made in (found(), found(elsewhere=[served])):
        assert made.serve == (served,)
        assert made.unplaced == {large: "its rank 40 is above this boot's 16"}
    # Whether or not the other one is told to hold it: until it does, this one serves.
    renewals = [found().renewal, found(elsewhere=[served]).renewal]
    assert [renewal and (renewal.needed, renewal.hurries) for renewal in renewals] == [
        ((served,), False),
        ((), False),
    ]
    idle = plan(replace(view(), share=wanted), held(served, slots=()), small).renewal
    assert idle is not None
    assert idle.needed == (), "it serves nobody"
    while_one_is_down = plan(
        replace(view(elsewhere=[served], away=True), share=wanted), held(served), small
    ).renewal
    assert while_one_is_down is not None
    assert while_one_is_down.needed == (served,), "it may have gone for the same"
    used_up = plan(replace(view(), share=wanted), held(served, *VERSIONS[2:4]), replace(small, names=3))
    assert used_up.renewal is not None, "what a fresh boot cures hides no other reason for one"
    beyond = plan(view(large, rank=65), held(), small)
    assert beyond.renewal is None, "no boot of this engine would hold it"
    going = plan(view(large, rank=40, leaving=[large]), held(), small)
    assert going.renewal is None


def test_nobody_starts_to_load_what_is_leaving() -> None:
    here, gone = VERSIONS[:2]
    made = plan(view(here, gone, leaving=(here, gone)), held(here), ROOM)
    assert made.serve == (here,)
    assert made.load == ()
    assert "on its way" in made.unplaced[gone]


def test_a_slot_ends_when_others_want_and_serve_the_version_and_nobody_wants_it_here() -> None:
    version = VERSIONS[0]
    moved = view(expected=[version], elsewhere=[version])
    assert plan(moved, held(version), ROOM).withdraw == (version,)
    assert plan(moved, held(version, slots=()), ROOM).withdraw == ()
    assert plan(replace(moved, elsewhere=frozenset()), held(version), ROOM).withdraw == ()
    unwanted = replace(moved, expected=frozenset())
    assert plan(unwanted, held(version), ROOM).withdraw == (), "a move of its alias back costs nothing"
    assert plan(unwanted, held(version), ROOM).retired == (version,)
    assert plan(view(version, expected=[version], elsewhere=[version]), held(version), ROOM).withdraw == ()


def test_a_boot_whose_names_are_used_up_by_the_past_asks_for_a_fresh_one() -> None:
    old, new = VERSIONS[:2]
    room = replace(ROOM, names=1)
    renewal = plan(view(new), held(old), room).renewal
    assert renewal is not None
    assert renewal.needed == ()
    assert plan(view(new), held(old), replace(room, names=2)).renewal is None
    assert plan(view(old, new), held(old), room).renewal is None, "a fresh boot would hold no more"


def test_a_fresh_boot_waits_for_those_that_others_are_to_serve() -> None:
    old, kept, new = VERSIONS[:3]
    room = replace(ROOM, names=2)
    waiting = plan(view(kept, new, expected=[kept]), held(old, kept), room).renewal
    assert waiting is not None
    assert waiting.needed == (kept,)
    going = plan(view(kept, new, expected=[kept], elsewhere=[kept]), held(old, kept), room).renewal
    assert going is not None
    assert going.needed == ()


def test_two_boots_do_not_start_afresh_at_once() -> None:
    """Nothing is expected of an engine that is down: what only this one serves waits until it is back."""
    old, kept, new = VERSIONS[:3]
    room = replace(ROOM, names=2)
    waiting = plan(view(kept, new, away=True), held(old, kept), room).renewal
    assert waiting is not None
    assert waiting.needed == (kept,)
    going = plan(view(kept, new, away=True, elsewhere=[kept]), held(old, kept), room).renewal
    assert going is not None
    assert going.needed == ()


def test_an_engine_that_is_given_to_a_tenant_starts_again_without_the_others() -> None:
    mine, other = VERSIONS[:2]
    given = replace(view(mine, exclusive="bank_a"), tenants={mine: "bank_a", other: "retail_b"})
    assert plan(given, held(mine), ROOM).renewal is None
    assert plan(given, held(mine, other, slots={mine}), ROOM).renewal is None  # nobody else serves its tenant
    given = replace(given, elsewhere=frozenset({mine}))
    renewal = plan(given, held(mine, other, slots={mine}), ROOM).renewal
    assert renewal is not None
    assert "one tenant" in renewal.why
    leaving = replace(given, share=view(mine, other, exclusive="bank_a", leaving=[other]).share)
    assert plan(leaving, held(mine, other), ROOM).renewal is None, "not before it is served elsewhere"


def test_a_boot_that_holds_what_others_had_ends_when_the_fleet_needs_it_no_longer() -> None:
    mine = VERSIONS[0]
    given = view(exclusive="bank_a")
    given = replace(given, share=replace(given.share, afresh=True))
    renewal = plan(given, held(mine), ROOM).renewal
    assert renewal is not None
    assert renewal.needed == ()


def test_other_weights_need_a_fresh_boot_and_a_merged_engine_serves_nothing_else() -> None:
    version, other = VERSIONS[:2]
    to_merge = plan(view(version, merged=version), held(version), ROOM).renewal
    back = plan(view(version), held(version, merged=version), ROOM).renewal
    assert to_merge is not None
    assert back is not None
    made: Plan = plan(view(version, other, merged=version, rank=64), held(merged=version), ROOM)
    assert made.load == (version,)
    assert made.renewal is None
    assert set(made.unplaced) == {other}


def test_a_capacity_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="hold nothing"):
        Capacity(names=0, rank=8)


def test_what_vllm_did_not_take_is_loaded_again_under_its_own_name() -> None:
    first, second = VERSIONS[:2]
    failing = replace(held(first), again={first}, slots=set())
    made = plan(view(first, second), failing, replace(ROOM, names=2))
    assert made.load == (first, second), "its name is spent once"
    assert made.renewal is None
    assert plan(view(first), replace(failing, unfit={first: "later"}), ROOM).load == ()


def test_loads_that_fail_again_and_again_ask_for_a_fresh_boot_once_others_serve() -> None:
    mine, failing = VERSIONS[:2]
    stuck = replace(held(mine), again={failing}, stuck={failing})
    theirs = replace(view(mine, failing, expected=[mine]), tenants={mine: "bank_a", failing: "bank_b"})
    made = plan(theirs, stuck, ROOM)
    assert made.renewal is not None
    assert (made.renewal.needed, made.renewal.hurries) == ((mine,), False)
    assert plan(view(mine, failing), replace(stuck, stuck=set()), ROOM).renewal is None
    assert plan(view(mine), stuck, ROOM).renewal is None, "nobody wants it any more"


@pytest.mark.parametrize(
    ("stuck", "spoilt", "owners", "hurries"),
    [
        ("x", "", {"x": "bank_b"}, False),
        ("xy", "", {"x": "bank_b", "y": "bank_b"}, False),
        ("xy", "", {"x": "bank_b", "y": "retail_c"}, True),
        ("x", "y", {"x": "bank_b", "y": "retail_c"}, False),
        ("x", "yz", {"x": "bank_b", "y": "retail_c", "z": "bank_d"}, True),
        ("xy", "z", {"x": "bank_b", "y": "retail_c", "z": "bank_d"}, True),
        ("", "xy", {"x": "bank_b", "y": "bank_b"}, False),
        ("", "xy", {"x": "bank_b", "y": "retail_c"}, True),
        ("x", "", {"x": "bank_a"}, True),
        ("", "x", {"x": "bank_a"}, True),
    ],
)
def test_nobody_is_interrupted_for_what_one_tenant_can_bring_about(
    stuck: str, spoilt: str, owners: dict[str, str], hurries: bool
) -> None:
    mine = VERSIONS[0]
    named = dict(zip("xyz", VERSIONS[1:], strict=False))
    state = replace(
        held(mine),
        again=set(named.values()),
        stuck={named[letter] for letter in stuck},
        spoilt={named[letter] for letter in spoilt},
    )
    tenants = {mine: "bank_a"} | {named[letter]: owner for letter, owner in owners.items()}
    made = plan(replace(view(mine, *named.values()), tenants=tenants), state, ROOM).renewal
    assert made is not None
    assert made.hurries is hurries
    if not hurries:
        assert made.needed == (mine,)


@pytest.mark.parametrize(("ahead", "wanted"), [(0, True), (14, True), (15, False)])
def test_a_clock_that_is_ahead_drops_no_preparation_that_the_registry_waits_for(
    ahead: int, wanted: bool
) -> None:
    version, base = VERSIONS[0], Digest.of(b"base")
    prepared = Preparation(
        tenant="bank_a", adapter="assistant", alias="live", version=version, epoch=0, until=stamp(NOW)
    )
    engine = EngineState(
        engine="engine-0",
        boot="boot-0001",
        url="http://127.0.0.1:1",
        base=base,
        engine_version="0.32.0",
        dtype="float32",
        max_loras=8,
    )
    published = VersionState(version=version, tenant="bank_a", adapter="assistant", base=base, rank=8)
    state = State(
        position=Position(1, base),
        tenants={"bank_a": Tenant(id="bank_a", display_name="A")},
        keys={},
        bases={},
        policies={},
        routings={},
        aliases={},
        preparations={("bank_a", "assistant", "live"): prepared},
        versions={version: published},
        engines={"engine-0": engine},
        slots={},
    )
    view = outlook(state, "engine-0", NOW + timedelta(minutes=ahead, seconds=1))
    assert bool(view.share.versions) is wanted
