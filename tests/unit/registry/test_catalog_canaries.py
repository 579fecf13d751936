from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from registry.assignment import assigned
from registry.catalog.errors import (
    CanaryInvalid,
    ExpiryInvalid,
    NothingToRollBack,
    ShadowInvalid,
    VersionUnfingerprinted,
)
from registry.clock import ManualClock, stamp
from registry.digests import Digest
from registry.errors import AliasMoved, AliasNotFound, GateRefused, VersionNotFound, VersionRevoked
from registry.evidence import GatePolicy
from registry.models import AliasState
from registry.names import AdapterName, Ref
from tests.support.registries import GATE, NAME, World, open_world

UNITS = [f"unit {number}" for number in range(2000)]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def timed(tmp_path: Path, clock: ManualClock) -> Iterator[World]:
    made = open_world(tmp_path, clock=clock)
    yield made
    made.database.close()


def _share(world: World, version: Digest, percent: float) -> AliasState:
    world.catalog.promote(NAME, version, gate=GATE, percent=percent, actor="test")
    return world.catalog.alias(NAME)


def _served(state: AliasState, version: Digest) -> set[str]:
    return {unit for unit in UNITS if assigned(state, unit) == version}


def test_a_canary_grows_ends_and_leaves_a_history(anywhere: World) -> None:
    stable, fresh = anywhere.promoted(seed=1), anywhere.evaluated(seed=2)
    five = _share(anywhere, fresh, 5)
    assert (five.version, five.epoch, five.canaries[0].percent) == (stable, 2, 5)
    twenty = _share(anywhere, fresh, 20)
    assert _served(five, fresh) < _served(twenty, fresh)
    assert _share(anywhere, fresh, 20) == twenty
    ended = anywhere.catalog.rollback(NAME, actor="test")
    assert (ended.version, ended.canaries, ended.epoch) == (stable, (), 4)
    _share(anywhere, fresh, 50)
    whole = _share(anywhere, fresh, 100)
    assert (whole.version, whole.canaries) == (fresh, ())
    assert anywhere.catalog.rollback(NAME, actor="test").version == stable
    moves = anywhere.catalog.history(NAME)
    assert [move.cause for move in moves] == [
        "promotion", "canary", "canary", "rollback", "canary", "promotion", "rollback",
    ]  # fmt: skip
    assert [move.epoch for move in moves] == list(range(1, 8))
    assert moves[1].verdict is not None
    assert moves[1].canaries == five.canaries
    assert anywhere.catalog.verify() == []


def test_two_canaries_never_trade_people(world: World) -> None:
    world.promoted(seed=1)
    one, two, three = (world.evaluated(seed=seed) for seed in (2, 3, 4))
    _share(world, one, 10)
    both = _share(world, two, 10)
    raised = _share(world, one, 60)
    assert _served(raised, two) == _served(both, two)
    assert _served(both, one) < _served(raised, one)
    with pytest.raises(CanaryInvalid):
        _share(world, three, 1)
    with pytest.raises(CanaryInvalid):
        _share(world, two, 40)
    assert world.catalog.alias(NAME) == raised
    world.catalog.revoke(one, reason="x", actor="test")
    alone = world.catalog.alias(NAME)
    assert _served(alone, two) == _served(both, two)
    assert _served(_share(world, three, 10), two) == _served(both, two)


@pytest.mark.parametrize("percent", [0, -1, 100.5, 0.001, 33.333, float("nan"), float("inf")])
def test_shares_that_are_none(world: World, percent: float) -> None:
    before = world.promoted(seed=1)
    fresh = world.evaluated(seed=2)
    with pytest.raises(CanaryInvalid):
        _share(world, fresh, percent)
    assert world.catalog.alias(NAME).version == before


def test_a_canary_needs_a_stable_version_and_a_verdict(world: World) -> None:
    fresh = world.evaluated(seed=1)
    with pytest.raises(AliasNotFound):
        _share(world, fresh, 5)
    stable = world.promoted(seed=2)
    with pytest.raises(CanaryInvalid):
        _share(world, stable, 5)
    for gate in (GatePolicy(), GATE):
        with pytest.raises(GateRefused):
            world.catalog.promote(NAME, world.push(seed=3), gate=gate, percent=5, actor="test")
    with pytest.raises(AliasMoved):
        world.catalog.promote(NAME, fresh, gate=GATE, percent=5, expect_epoch=0, actor="test")
    with pytest.raises(CanaryInvalid, match="as a whole"):
        world.catalog.promote(
            NAME, fresh, gate=GATE, percent=5, expires_at="2030-01-01T00:00:00Z", actor="test"
        )
    assert world.catalog.alias(NAME).canaries == ()


def test_promoting_the_stable_version_ends_the_canaries(world: World) -> None:
    stable, fresh = world.promoted(seed=1), world.evaluated(seed=2)
    _share(world, fresh, 5)
    state = _share(world, stable, 100)
    assert (state.version, state.canaries, state.epoch) == (stable, (), 3)
    with pytest.raises(NothingToRollBack):
        world.catalog.rollback(NAME, actor="test")


def test_shadows(anywhere: World) -> None:
    stable = anywhere.promoted(seed=1)
    copies = [anywhere.push(seed=seed) for seed in (2, 3)]
    state = anywhere.catalog.shadow(NAME, copies, expect_epoch=1, actor="alice")
    assert (state.shadows, state.version, state.epoch) == (tuple(sorted(copies)), stable, 2)
    assert anywhere.catalog.shadow(NAME, reversed_of(copies), actor="alice") == state
    assert {assigned(state, unit) for unit in UNITS} == {stable}
    for shadows, error in (
        ([stable], ShadowInvalid),
        ([Digest.of(b"x")], VersionNotFound),
        ([anywhere.push(AdapterName("retail_b", "assistant"), seed=9)], VersionNotFound),
        ([anywhere.push(seed=4, fingerprinted=False)], VersionUnfingerprinted),
        ([Digest.of(bytes([number])) for number in range(5)], ShadowInvalid),
    ):
        with pytest.raises(error):
            anywhere.catalog.shadow(NAME, shadows, actor="alice")
    with pytest.raises(AliasMoved):
        anywhere.catalog.shadow(NAME, [], expect_epoch=1, actor="alice")
    with pytest.raises(AliasNotFound):
        anywhere.catalog.shadow(NAME, [], alias="other", actor="alice")
    assert anywhere.catalog.alias(NAME) == state
    # A shadow that begins to answer is a shadow no more.
    anywhere.catalog.file_report(anywhere.report(copies[0]), actor="test")
    anywhere.catalog.promote(NAME, copies[0], gate=GATE, percent=5, actor="test")
    assert anywhere.catalog.alias(NAME).shadows == (copies[1],)
    with pytest.raises(ShadowInvalid):
        anywhere.catalog.shadow(NAME, [copies[0]], actor="alice")
    assert anywhere.catalog.shadow(NAME, [], actor="alice").shadows == ()
    assert anywhere.catalog.verify() == []


def reversed_of(items: list[Digest]) -> list[Digest]:
    return list(reversed(items))


def test_rolling_back_to_a_shadow_makes_it_answer(world: World) -> None:
    one = world.promoted(seed=1)
    world.promoted(seed=2)
    world.catalog.shadow(NAME, [one], actor="test")
    state = world.catalog.rollback(NAME, actor="test")
    assert (state.version, state.shadows) == (one, ())


def test_a_revoked_version_is_neither_canary_nor_shadow(anywhere: World) -> None:
    stable = anywhere.promoted(seed=1)
    canary, shadow = anywhere.evaluated(seed=2), anywhere.push(seed=3)
    anywhere.catalog.promote(NAME, stable, gate=GATE, alias="staging", actor="test")
    anywhere.catalog.shadow(NAME, [canary], alias="staging", actor="test")
    _share(anywhere, canary, 5)
    anywhere.catalog.shadow(NAME, [shadow], actor="test")
    anywhere.catalog.revoke(canary, reason="poisoned", actor="alice")
    anywhere.catalog.revoke(shadow, reason="poisoned", actor="alice")
    for alias, epoch in (("live", 5), ("staging", 3)):
        state = anywhere.catalog.alias(NAME, alias)
        assert (state.version, state.canaries, state.shadows, state.epoch) == (stable, (), (), epoch)
    last = anywhere.catalog.history(NAME)[-1]
    assert (last.cause, last.verdict, last.actor) == ("revocation", None, "alice")
    for percent in (5, 100):
        with pytest.raises(VersionRevoked):
            _share(anywhere, canary, percent)
    with pytest.raises(VersionRevoked):
        anywhere.catalog.shadow(NAME, [shadow], actor="test")
    assert anywhere.catalog.verify() == []


def test_an_alias_expires(timed: World, clock: ManualClock) -> None:
    stable, trial = timed.promoted(seed=1), timed.evaluated(seed=2)
    end = stamp(clock.now() + timedelta(seconds=60))
    timed.catalog.promote(NAME, trial, gate=GATE, expires_at=end, actor="test")
    assert timed.catalog.alias(NAME).expires_at == end
    assert timed.catalog.resolve(Ref(NAME, alias="live")) == trial
    assert [item.state for item in timed.catalog.versions(NAME)] == ["evaluated", "live"]
    clock.advance(60)
    with pytest.raises(AliasNotFound):
        timed.catalog.resolve(Ref(NAME, alias="live"))
    assert [item.state for item in timed.catalog.versions(NAME)] == ["evaluated", "evaluated"]
    with pytest.raises(AliasNotFound):
        _share(timed, stable, 5)
    with pytest.raises(ExpiryInvalid):
        timed.catalog.promote(NAME, trial, gate=GATE, expires_at=end, actor="test")
    back = timed.catalog.rollback(NAME, actor="test")
    assert (back.version, back.expires_at) == (stable, None)
    third = timed.promoted(seed=3)
    timed.catalog.promote(NAME, trial, gate=GATE, actor="test")
    assert timed.catalog.rollback(NAME, actor="test").version == third
    assert timed.catalog.verify() == []


def test_rolling_back_never_lands_on_what_has_expired(timed: World, clock: ManualClock) -> None:
    first, trial = timed.promoted(seed=1), timed.evaluated(seed=2)
    end = stamp(clock.now() + timedelta(seconds=60))
    timed.catalog.promote(NAME, trial, gate=GATE, expires_at=end, actor="test")
    timed.promoted(seed=3)
    clock.advance(60)
    assert timed.catalog.rollback(NAME, actor="test").version == first


def test_a_roll_back_names_the_epoch_it_saw(world: World) -> None:
    world.promoted(seed=1)
    world.promoted(seed=2)
    with pytest.raises(AliasMoved):
        world.catalog.rollback(NAME, expect_epoch=1, actor="test")
    assert world.catalog.rollback(NAME, expect_epoch=2, actor="test").epoch == 3


def test_pages_of_history(world: World) -> None:
    one, two = world.promoted(seed=1), world.promoted(seed=2)
    for _ in range(3):
        world.catalog.promote(NAME, one, gate=GATE, actor="test")
        world.catalog.promote(NAME, two, gate=GATE, actor="test")
    moves = world.catalog.history(NAME)
    paged = list(world.catalog.history(NAME, limit=3))
    while page := world.catalog.history(NAME, after=paged[-1].entry, limit=3):
        paged += page
    assert tuple(paged) == moves
    assert [state.alias for state in world.catalog.aliases(NAME)] == ["live"]
