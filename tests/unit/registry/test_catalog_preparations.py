from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry.catalog.errors import PromotionNotReady, VersionUnfingerprinted
from registry.clock import ManualClock
from registry.digests import Digest
from registry.errors import (
    AliasMoved,
    AliasNotFound,
    GateRefused,
    InvalidInput,
    VersionNotFound,
    VersionRevoked,
)
from registry.evidence import GatePolicy
from registry.feed import Delta, State
from registry.fleet import assigned
from registry.models import AliasState, Former, Isolation, Level
from registry.names import AdapterName
from registry.promotions import Protection
from tests.support.registries import GATE, NAME, World, attested, open_world

THEIRS = AdapterName("retail_b", "assistant")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def timed(tmp_path: Path, clock: ManualClock) -> Iterator[World]:
    made = open_world(tmp_path, clock=clock)
    yield made
    made.database.close()


def _serve(world: World, *engines: str) -> None:
    for engine in engines:
        world.catalog.announce(world.engine(engine), actor=engine)


def _attest(world: World, version: Digest, engine: str, *, passed: bool = True) -> None:
    finding = world.finding(version, passed=passed).model_copy(update={"engine": engine})
    world.catalog.attest(attested(finding), actor=engine)


START = "2026-01-01T00:00:00.000000Z"


def _former(
    version: Digest, since: int, epoch: int | None = None, until: str = "2026-01-02T00:00:00.000000Z"
) -> Former:
    """Of a promotion at the beginning of time."""
    return Former(version=version, since=since, epoch=epoch or since, until=until)


def _figures(world: World, version: Digest) -> tuple[int, int, int, bool]:
    found = world.catalog.readiness(NAME, version)
    return found.engines, found.wanted, found.attested, found.ready


def test_a_promotion_waits_until_every_engine_holds_the_version(world: World) -> None:
    old = world.promoted(seed=1)
    _serve(world, "engine-0", "engine-1")
    new = world.evaluated(seed=2)
    preparation = world.catalog.prepare(NAME, new, gate=GATE, seconds=60, actor="ann")
    assert (preparation.version, preparation.epoch) == (new, 1)
    assert preparation.until == "2026-01-01T00:01:00.000000Z"
    for engine, attested_on in (("engine-0", 0), ("engine-1", 1)):
        assert _figures(world, new) == (2, 2, attested_on, False)
        with pytest.raises(PromotionNotReady) as refused:
            world.catalog.promote(NAME, new, gate=GATE, require_ready=True, actor="ann")
        assert refused.value.facts == {"wanted": 2, "attested": attested_on}
        assert "engine-" not in refused.value.message
        assert world.catalog.alias(NAME).version == old
        _attest(world, new, engine)
    assert _figures(world, new) == (2, 2, 2, True)
    world.catalog.promote(NAME, new, gate=GATE, require_ready=True, actor="ann")
    state = world.catalog.alias(NAME)
    assert (state.version, state.epoch, state.former) == (new, 2, _former(old, 1))
    assert world.catalog.verify() == []


def test_without_engines_nobody_waits(world: World) -> None:
    version = world.evaluated()
    assert _figures(world, version) == (0, 0, 0, True)
    world.catalog.promote(NAME, version, gate=GATE, require_ready=True, actor="ann")


def test_where_all_engines_are_down_nothing_moves_unseen(world: World) -> None:
    version = world.evaluated()
    world.catalog.announce(world.engine(), actor="engine-0")
    world.catalog.announce(world.engine(up=False), actor="engine-0")
    assert _figures(world, version) == (0, 0, 0, False)
    assert world.catalog.readiness(NAME, version).down == 1
    size = world.catalog.log_size()
    with pytest.raises(PromotionNotReady, match="all engines of its base are down") as refused:
        world.catalog.promote(NAME, version, gate=GATE, require_ready=True, actor="ann")
    assert "--no-wait" in refused.value.advice
    assert "room" not in refused.value.message
    assert world.catalog.log_size() == size
    world.catalog.promote(NAME, version, gate=GATE, actor="ann")
    assert world.catalog.alias(NAME).version == version


def test_a_tenant_whose_own_engine_is_all_there_is_promotes_by_it(world: World) -> None:
    """Merged weights are changed by starting again: no engine can hold the version before."""
    old, new = world.evaluated(seed=1), world.evaluated(seed=2)
    world.catalog.promote(NAME, old, gate=GATE, actor="ann")
    world.catalog.announce(world.engine(), actor="engine-0")
    isolation = Isolation(level=Level.MERGED, engines=("engine-0",))
    world.catalog.isolate_tenant("bank_a", isolation, force=True, actor="root")
    merged = world.engine(boot="boot-0002").model_copy(update={"merged": old})
    world.catalog.announce(merged, actor="engine-0")
    world.catalog.attest(attested(world.finding(old, boot="boot-0002")), actor="engine-0")

    def figures() -> tuple[bool, bool, int]:
        found = world.catalog.readiness(NAME, new)
        return found.ready, found.restarts, found.wanted

    assert figures() == (True, True, 0)
    world.catalog.announce(world.engine("engine-1"), actor="engine-1")
    assert figures() == (False, False, 1)  # it can be asked to hold it first
    world.catalog.announce(world.engine("engine-1", up=False), actor="engine-1")
    assert figures() == (True, True, 0)
    world.catalog.promote(NAME, new, gate=GATE, require_ready=True, actor="ann")
    shares = assigned(State.of(world.catalog.snapshot()), datetime(2026, 1, 1, tzinfo=UTC))
    assert shares["engine-0"].merged == new
    world.catalog.announce(merged.model_copy(update={"up": False}), actor="engine-0")
    assert not world.catalog.readiness(NAME, old).ready


def test_what_was_attested_and_then_failed_is_not_ready(world: World) -> None:
    version = world.evaluated()
    _serve(world, "engine-0")
    _attest(world, version, "engine-0")
    assert _figures(world, version) == (1, 1, 1, True)
    _attest(world, version, "engine-0", passed=False)
    assert _figures(world, version) == (1, 1, 0, False)
    _attest(world, version, "engine-0")
    world.catalog.announce(world.engine(boot="boot-0002"), actor="engine-0")
    assert _figures(world, version) == (1, 1, 0, False)


def test_a_preparation_says_whether_it_is_in_force(timed: World, clock: ManualClock) -> None:
    first, second = timed.evaluated(seed=1), timed.evaluated(seed=2)

    def until(version: Digest) -> str | None:
        return timed.catalog.readiness(NAME, version).prepared_until

    assert until(first) is None
    timed.catalog.prepare(NAME, first, seconds=60, actor="ann")
    assert (until(first), until(second)) == ("2026-01-01T00:01:00.000000Z", None)
    timed.catalog.prepare(NAME, second, seconds=60, actor="bob")  # one at a time
    assert (until(first), until(second)) == (None, "2026-01-01T00:01:00.000000Z")
    clock.advance(60)
    assert until(second) is None
    timed.catalog.prepare(NAME, second, seconds=60, actor="bob")
    timed.catalog.promote(NAME, first, gate=GATE, actor="ann")  # the alias moved: it is over
    assert until(second) is None


def test_the_same_preparation_twice_is_one_entry(timed: World, clock: ManualClock) -> None:
    version = timed.evaluated()
    first = timed.catalog.prepare(NAME, version, seconds=60, actor="ann")
    size = timed.catalog.log_size()
    assert timed.catalog.prepare(NAME, version, seconds=30, actor="bob") == first
    assert timed.catalog.log_size() == size
    clock.advance(1)
    assert timed.catalog.prepare(NAME, version, seconds=60, actor="ann").until > first.until
    assert timed.catalog.log_size() == size + 1


def test_a_preparation_is_refused_for_what_a_promotion_is(world: World) -> None:
    good, unproven = world.evaluated(seed=1), world.push(seed=2)
    bare, theirs = world.push(seed=3, fingerprinted=False), world.evaluated(THEIRS, seed=4)
    gone = world.evaluated(seed=5)
    world.catalog.revoke(gone, reason="x", actor="ann")
    size = world.catalog.log_size()
    for version, error in ((bare, VersionUnfingerprinted), (theirs, VersionNotFound), (gone, VersionRevoked)):
        with pytest.raises(error):
            world.catalog.prepare(NAME, version, seconds=60, actor="ann")
    with pytest.raises(VersionNotFound):
        world.catalog.readiness(NAME, theirs)
    with pytest.raises(AliasMoved):
        world.catalog.prepare(NAME, good, seconds=60, expect_epoch=1, actor="ann")
    with pytest.raises(AliasNotFound):  # a canary beside nothing
        world.catalog.prepare(NAME, good, seconds=60, percent=10, actor="ann")
    with pytest.raises(GateRefused):
        world.catalog.prepare(NAME, unproven, seconds=60, gate=GATE, actor="ann")
    with pytest.raises(GateRefused):
        world.catalog.prepare(NAME, good, seconds=60, gate=GatePolicy(), actor="ann")
    for seconds in (0, -1, 3601, float("nan")):
        with pytest.raises(InvalidInput):
            world.catalog.prepare(NAME, good, seconds=seconds, actor="ann")
    assert world.catalog.log_size() == size
    world.catalog.prepare(NAME, unproven, seconds=60, actor="ann")  # nobody asked for a gate


def test_the_approval_that_moves_the_alias_may_wait_for_engines_too(world: World) -> None:
    version = world.evaluated()
    world.catalog.protect(Protection(tenant="bank_a", alias="live", approvals=2), actor="root")
    _serve(world, "engine-0")
    proposal = world.catalog.propose(NAME, version, gate=GATE, actor="ann")
    first = world.catalog.approve(proposal.id, require_ready=True, actor="bob")
    assert (first.state, first.approved_by) == ("open", ("bob",))  # it moves nothing, so it waits for nothing
    with pytest.raises(PromotionNotReady):
        world.catalog.approve(proposal.id, require_ready=True, actor="cem")
    assert world.catalog.proposal(proposal.id) == first  # and this approval has not happened
    _attest(world, version, "engine-0")
    assert world.catalog.approve(proposal.id, require_ready=True, actor="cem").state == "done"
    assert world.catalog.alias(NAME).version == version


def test_the_feed_tells_of_preparations(world: World) -> None:
    version = world.evaluated()
    before = world.catalog.snapshot()
    preparation = world.catalog.prepare(NAME, version, seconds=60, actor="ann")
    news = world.catalog.changes(*before.position)
    assert isinstance(news, Delta)
    assert news.preparations == (preparation,)
    state = State.of(before).after(news)
    assert state.preparations == {("bank_a", "assistant", "live"): preparation}
    assert state == State.of(world.catalog.snapshot())
    (entry,) = world.catalog.entries(before.size, tenant="bank_a")
    assert (entry.kind, entry.subject, entry.actor) == (
        "promotion.prepared",
        "bank_a/assistant:live",
        "ann",
    )
    assert world.catalog.entries(before.size, tenant="retail_b") == ()
    assert world.catalog.verify() == []


def test_what_an_alias_showed_before(world: World) -> None:
    one, two, three = (world.evaluated(seed=seed) for seed in (1, 2, 3))

    def promote(version: Digest, percent: float = 100) -> AliasState:
        world.catalog.promote(NAME, version, gate=GATE, percent=percent, actor="ann")
        return world.catalog.alias(NAME)

    assert promote(one).former is None
    assert promote(two).former == _former(one, 1)
    assert promote(three, 10).former == _former(one, 1)  # a canary leaves it
    assert world.catalog.shadow(NAME, [one], actor="ann").former == _former(one, 1)
    assert promote(two).former == _former(one, 1)  # the canary ends; everybody has two as before
    assert promote(three).former == _former(two, 2, 5)
    # Nobody is answered by three any more, and by one only after another roll back.
    assert world.catalog.rollback(NAME, actor="ann").former == _former(one, 1, until=START)
    assert promote(three).former == _former(two, 7)
    world.catalog.revoke(two, reason="x", actor="ann")
    state = world.catalog.alias(NAME)
    assert (state.former, state.epoch) == (None, 9)
    assert world.catalog.history(NAME)[-1].cause == "revocation"
    world.catalog.revoke(three, reason="x", actor="ann")
    assert promote(one).former is None  # what was revoked is no way back
    assert world.catalog.verify() == []


def test_since_when_everybody_was_answered_by_the_former_version(timed: World, clock: ManualClock) -> None:
    one, two, three = (timed.evaluated(seed=seed) for seed in (1, 2, 3))

    def promote(version: Digest, percent: float = 100) -> Former | None:
        timed.catalog.promote(NAME, version, gate=GATE, percent=percent, actor="ann")
        return timed.catalog.alias(NAME).former

    promote(one)
    for percent in range(1, 31):  # more than one page of the log
        promote(two, percent)
    clock.advance(60)
    assert promote(two) == Former(version=one, since=1, epoch=31, until="2026-01-02T00:01:00.000000Z")
    assert promote(one) == Former(version=two, since=32, epoch=32, until="2026-01-02T00:01:00.000000Z")
    assert promote(three) == Former(version=one, since=33, epoch=33, until="2026-01-02T00:01:00.000000Z")
    timed.catalog.rollback(NAME, actor="ann")
    clock.advance(60)
    assert promote(two) == Former(version=one, since=35, epoch=35, until="2026-01-02T00:02:00.000000Z")
    assert timed.catalog.verify() == []


def test_a_canary_that_is_the_former_version_ends_as_both(world: World) -> None:
    one, two = world.promoted(seed=1), world.evaluated(seed=2)
    world.catalog.promote(NAME, two, gate=GATE, actor="ann")
    world.catalog.promote(NAME, one, gate=GATE, percent=20, actor="ann")
    state = world.catalog.rollback(NAME, actor="ann")
    assert (state.version, state.canaries, state.former) == (two, (), None)


def test_what_expired_answered_nobody_before(timed: World, clock: ManualClock) -> None:
    one, two = timed.evaluated(seed=1), timed.evaluated(seed=2)
    timed.catalog.promote(NAME, one, gate=GATE, expires_at="2026-01-01T00:01:00Z", actor="ann")
    clock.advance(60)
    timed.catalog.promote(NAME, two, gate=GATE, actor="ann")
    assert timed.catalog.alias(NAME).former is None


def test_states_of_before_keep_their_bytes() -> None:
    state = AliasState(
        tenant="bank_a", adapter="desk", alias="live", version=Digest.of(b"x"), epoch=3, shadows=()
    )
    assert "former" not in state.model_dump(mode="json")
    assert b"former" not in state.canonical()
    for more in ({}, {"since": 1, "until": "2026-01-02T00:00:00.000000Z"}):
        former = Former.model_validate({"version": Digest.of(b"y"), "epoch": 2} | more)
        assert set(former.model_dump(mode="json")) == {"version", "epoch", *more}
        then = state.model_copy(update={"former": former})
        assert AliasState.parse(then.canonical()) == then
