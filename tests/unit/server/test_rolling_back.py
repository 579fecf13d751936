"""A roll back: at once where engines hold what it leads to, else in two phases."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.catalog.errors import NothingToRollBack, PromotionNotReady
from registry.digests import Digest
from registry.errors import AliasMoved, AliasNotFound
from registry.models import AliasState
from registry.names import LIVE
from registry.promotions import Protection, WayBack
from server.assembly.awaiting import Patience
from server.assembly.rolling_back import roll_back
from tests.support.registries import GATE, NAME, World, attested, open_world
from tests.support.waiting import Waiting

ENGINES = ("engine-0", "engine-1")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = open_world(tmp_path)
    yield made
    made.database.close()


@pytest.fixture
def three(world: World) -> list[Digest]:
    """Promoted one after the other, before there were engines; they hold the last one."""
    made = [world.promoted(seed=seed) for seed in (1, 2, 3)]
    for engine in ENGINES:
        world.catalog.announce(world.engine(engine), actor=engine)
        _attest(world, made[2], engine)
    return made


def _attest(world: World, version: Digest, *engines: str) -> None:
    for engine in engines or ENGINES:
        world.catalog.attest(attested(world.finding(version, engine=engine)), actor=engine)


def _back(world: World, patience: Patience | None, **more: Any) -> AliasState:
    given = {"alias": LIVE, "expect_epoch": None, "actor": "ann"} | more
    return roll_back(world.catalog, NAME, patience=patience, **given)


def test_what_engines_hold_it_leads_to_at_once(world: World, three: list[Digest]) -> None:
    _attest(world, three[1])
    waiting = Waiting()
    size = world.catalog.log_size()
    assert _back(world, waiting.patience(3)).version == three[1]
    assert (waiting.pauses, waiting.seen) == (0, [])
    assert world.catalog.log_size() == size + 1  # the move, and no preparation


def test_what_engines_do_not_hold_is_prepared_first(world: World, three: list[Digest]) -> None:
    waiting = Waiting()
    shown: list[Digest] = []
    waiting.plan = {
        2: lambda: _attest(world, three[1], "engine-1"),
        4: lambda: shown.append(world.catalog.alias(NAME).version),
        6: lambda: _attest(world, three[1], "engine-0"),
    }
    state = _back(world, waiting.patience(60))
    assert (state.version, state.epoch, shown) == (three[1], 4, [three[2]])
    assert waiting.pauses == 6
    assert [(each.attested, each.wanted) for each in waiting.seen] == [(0, 2), (1, 2), (2, 2)]
    assert waiting.seen[0].prepared_until is not None
    assert world.catalog.history(NAME)[-1].cause == "rollback"
    assert world.catalog.verify() == []


def test_engines_are_told_of_the_next_one(world: World, three: list[Digest]) -> None:
    first, second, _ = three
    _attest(world, second)
    former = _back(world, Waiting().patience(3)).former
    assert former is not None
    assert (former.version, former.since, former.epoch) == (first, 1, 1)
    assert world.catalog.way_back(NAME) == WayBack(version=first, epoch=4)
    with pytest.raises(PromotionNotReady):
        world.catalog.rollback(NAME, require_ready=True, actor="ann")
    _attest(world, first)
    assert _back(world, Waiting().patience(3)).former is None


def test_a_revoked_version_is_not_kept_for_the_next_one(world: World, three: list[Digest]) -> None:
    world.catalog.promote(NAME, three[0], gate=GATE, actor="ann")
    world.catalog.revoke(three[1], reason="x", actor="ann")
    assert _back(world, None).former is None
    assert world.catalog.way_back(NAME).version == three[0]


def test_nothing_moves_when_time_is_over(world: World, three: list[Digest]) -> None:
    waiting = Waiting(plan={2: lambda: _attest(world, three[1], "engine-1")})
    with pytest.raises(PromotionNotReady, match=r"after 3 s 1 of 2 engines did not hold") as late:
        _back(world, waiting.patience(3))
    assert "--no-wait" in late.value.advice
    assert 3 <= waiting.now < 3.5
    assert (world.catalog.alias(NAME).version, world.catalog.alias(NAME).epoch) == (three[2], 3)


def test_without_patience_it_moves_at_once(world: World, three: list[Digest]) -> None:
    assert _back(world, None).version == three[1]


def test_ending_canaries_waits_for_nothing(world: World, three: list[Digest]) -> None:
    other = world.evaluated(seed=4)
    world.catalog.promote(NAME, other, gate=GATE, percent=10, actor="ann")
    _attest(world, other)
    world.catalog.announce(world.engine("engine-2"), actor="engine-2")
    world.catalog.attest(attested(world.finding(three[2], engine="engine-1", passed=False)), actor="engine-1")
    assert not world.catalog.readiness(NAME, three[2]).ready
    assert world.catalog.way_back(NAME).version == three[2]
    waiting = Waiting()
    state = _back(world, waiting.patience(3))
    assert (state.version, state.canaries, waiting.pauses) == (three[2], (), 0)


def test_an_alias_that_answers_nobody_waits_for_nothing(world: World, three: list[Digest]) -> None:
    """Requests are refused until the first engine has it, not until all have."""
    world.catalog.revoke(three[2], reason="x", actor="ann")
    waiting = Waiting()
    assert _back(world, waiting.patience(3)).version == three[1]
    assert waiting.pauses == 0


def test_whoever_moves_the_alias_meanwhile_is_not_overtaken(world: World, three: list[Digest]) -> None:
    other = world.evaluated(seed=4)
    waiting = Waiting(plan={2: lambda: world.catalog.promote(NAME, other, gate=GATE, actor="bob")})
    with pytest.raises(AliasMoved):
        _back(world, waiting.patience(60))
    assert (waiting.pauses, world.catalog.alias(NAME).version) == (2, other)


def test_a_version_that_is_revoked_meanwhile_is_not_waited_for(world: World, three: list[Digest]) -> None:
    """The one below is another one to prepare: it is said at once, and tried again by who wants it."""
    waiting = Waiting(plan={2: lambda: world.catalog.revoke(three[1], reason="x", actor="bob")})
    with pytest.raises((AliasMoved, PromotionNotReady)):
        _back(world, waiting.patience(60))
    assert (waiting.pauses, world.catalog.alias(NAME).version) == (2, three[2])
    assert world.catalog.way_back(NAME).version == three[0]


def test_what_is_refused_is_refused_as_ever(world: World, three: list[Digest]) -> None:
    waiting = Waiting()
    with pytest.raises(AliasMoved):
        _back(world, waiting.patience(3), expect_epoch=2)
    with pytest.raises(AliasNotFound):
        _back(world, waiting.patience(3), alias="other")
    with pytest.raises(AliasNotFound):
        world.catalog.way_back(NAME, alias="other")
    for version in three[:2]:
        world.catalog.revoke(version, reason="x", actor="ann")
    with pytest.raises(NothingToRollBack):
        _back(world, waiting.patience(3))
    with pytest.raises(NothingToRollBack):
        world.catalog.way_back(NAME)
    with pytest.raises(AliasMoved):  # before what is wrong besides
        _back(world, waiting.patience(3), expect_epoch=2)
    assert waiting.pauses == 0


def test_it_needs_no_approval_and_no_signature(world: World, three: list[Digest]) -> None:
    world.catalog.protect(
        Protection(tenant="bank_a", alias="live", approvals=2, release_signature=True), actor="root"
    )
    waiting = Waiting(plan={1: lambda: _attest(world, three[1])})
    assert _back(world, waiting.patience(3)).version == three[1]


def test_the_version_before_is_looked_for_again_at_the_move(
    world: World, three: list[Digest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revoked between the look at the engines and the transaction: what is below it was not looked at."""
    _attest(world, three[1])
    look = world.catalog._following.readiness

    def readiness(*asked: Any) -> Any:
        found = look(*asked)
        world.catalog.revoke(three[1], reason="x", actor="bob")
        return found

    monkeypatch.setattr(world.catalog._following, "readiness", readiness)
    with pytest.raises(PromotionNotReady, match="another version"):
        world.catalog.rollback(NAME, require_ready=True, actor="ann")
    assert world.catalog.alias(NAME).version == three[2]
