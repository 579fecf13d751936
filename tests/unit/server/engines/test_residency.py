from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.clock import stamp
from registry.digests import Digest
from registry.feed import Snapshot, State
from registry.models import AliasState, Canary, Tenant, VersionState
from server.engines.residency import Capacity, Plan, Wanted, plan, wanted

BASE = Digest.of(b"base")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
VERSIONS = [Digest.of(b"%d" % number) for number in range(8)]


def aliased(*targets: Digest, **changes: Any) -> tuple[AliasState, ...]:
    return tuple(
        AliasState(
            tenant="bank_a",
            adapter=f"a{number}",
            alias="live",
            **{"version": version, "epoch": 1, **changes},
        )
        for number, version in enumerate(targets)
    )


def known(
    *states: VersionState, aliases: tuple[AliasState, ...], suspended: bool = False, tenant: str = "bank_a"
) -> State:
    tenants = (Tenant(id=tenant, display_name="A", suspended=suspended),)
    return State.of(Snapshot(size=1, root=BASE, tenants=tenants, versions=states, aliases=aliases))


def state(version: Digest, *, base: Digest = BASE, revoked: bool = False) -> VersionState:
    return VersionState(version=version, tenant="bank_a", adapter="a", base=base, rank=8, revoked=revoked)


def versions_of(state: State, now: datetime = NOW) -> list[Digest]:
    return [target.version for target in wanted(state, BASE, now)]


def test_only_aliased_unrevoked_versions_of_this_base_are_wanted() -> None:
    good, revoked, foreign, unaliased = VERSIONS[:4]
    states = (
        state(good),
        state(revoked, revoked=True),
        state(foreign, base=Digest.of(b"other")),
        state(unaliased),
    )
    assert versions_of(known(*states, aliases=aliased(good, revoked, foreign))) == [good]


def test_canaries_are_wanted_and_shadows_not_yet() -> None:
    stable, canary, shadow = VERSIONS[:3]
    aliases = aliased(stable, canaries=(Canary(version=canary, percent=5),), shadows=(shadow,))
    assert versions_of(known(state(stable), state(canary), state(shadow), aliases=aliases)) == sorted(
        [stable, canary]
    )


def test_nothing_of_suspended_or_unknown_tenants_and_expired_aliases_is_wanted() -> None:
    good = VERSIONS[0]
    assert versions_of(known(state(good), aliases=aliased(good), suspended=True)) == []
    assert versions_of(known(state(good), aliases=aliased(good), tenant="other")) == []
    expiring = known(state(good), aliases=aliased(good, expires_at=stamp(NOW)))
    assert versions_of(expiring, NOW - timedelta(microseconds=1)) == [good]
    assert versions_of(expiring) == []


def test_a_newcomer_never_pushes_out_what_is_loaded() -> None:
    first, second = sorted(VERSIONS[:2])
    made = plan(
        [Wanted(first, 8), Wanted(second, 8)],
        loaded={second},
        unfit={},
        capacity=Capacity(ready=1, names=4, rank=16),
    )
    assert made.serve == (second,)
    assert made.load == ()
    assert "slots" in made.unplaced[first]


def test_a_high_rank_and_an_unfit_version_are_reported_and_take_no_slot() -> None:
    high, unfit, good = VERSIONS[:3]
    made = plan(
        [Wanted(high, 64), Wanted(unfit, 8), Wanted(good, 8)],
        loaded=set(),
        unfit={unfit: "no fingerprint"},
        capacity=Capacity(ready=1, names=1, rank=16),
    )
    assert made.load == (good,)
    assert made.unplaced == {high: "its rank 64 is above the engine's 16", unfit: "no fingerprint"}
    assert not made.recycle


def test_a_boot_whose_names_are_used_up_by_the_past_asks_to_be_recycled() -> None:
    old, new = VERSIONS[:2]
    room = Capacity(ready=1, names=1, rank=16)
    assert plan([Wanted(new, 8)], loaded={old}, unfit={}, capacity=room).recycle
    assert not plan([Wanted(new, 8)], loaded={old}, unfit={}, capacity=replace(room, names=2)).recycle
    assert not plan([Wanted(old, 8), Wanted(new, 8)], loaded={old}, unfit={}, capacity=room).recycle


def test_a_capacity_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot both hold"):
        Capacity(ready=3, names=2, rank=8)


capacities = st.integers(1, 5).flatmap(
    lambda ready: st.builds(Capacity, ready=st.just(ready), names=st.integers(ready, 8), rank=st.just(16))
)
targets = st.lists(
    st.builds(Wanted, version=st.sampled_from(VERSIONS), rank=st.sampled_from([8, 16, 32])),
    unique_by=lambda target: target.version,
)


@given(
    rounds=st.lists(st.tuples(targets, st.sets(st.sampled_from(VERSIONS))), max_size=12),
    capacity=capacities,
)
def test_over_any_history_capacity_holds_and_no_name_is_loaded_twice(
    rounds: list[tuple[list[Wanted], set[Digest]]], capacity: Capacity
) -> None:
    """One boot: whatever the registry wants over time, and whatever turns out unfit."""
    loaded: set[Digest] = set()
    names: list[Digest] = []
    for wants, broken in rounds:
        made: Plan = plan(wants, loaded=loaded, unfit=dict.fromkeys(broken, "broken"), capacity=capacity)
        names += made.load
        loaded |= set(made.load)
        assert len(made.serve) <= capacity.ready
        assert len(loaded) <= capacity.names
        assert len(names) == len(set(names))
        asked = {want.version for want in wants}
        assert set(made.serve) | set(made.unplaced) == asked
        assert not set(made.serve) & set(made.unplaced)
        assert not set(made.serve) & broken
        assert all(want.rank <= capacity.rank for want in wants if want.version in made.serve)
        assert set(made.withdraw) == loaded - set(made.serve)


@given(wants=targets, capacity=capacities)
def test_planning_again_after_loading_changes_nothing(wants: list[Wanted], capacity: Capacity) -> None:
    first = plan(wants, loaded=set(), unfit={}, capacity=capacity)
    again = plan(wants, loaded=set(first.load), unfit={}, capacity=capacity)
    assert again.load == ()
    assert again.serve == first.serve
