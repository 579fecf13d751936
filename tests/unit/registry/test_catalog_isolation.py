from datetime import UTC, datetime

import pytest

from registry.catalog.errors import EngineGiven, EngineNeeded, EngineNotFound, SlotsTaken
from registry.digests import Digest
from registry.errors import InvalidInput
from registry.feed import Delta, Snapshot, State
from registry.fleet import assigned
from registry.models import Isolation, Level, Quota, Tenant
from registry.names import AdapterName
from tests.support.registries import World, attested

NOW = datetime(2027, 1, 1, tzinfo=UTC)
DEDICATED = Isolation(level=Level.DEDICATED, engines=("engine-0",))


def _up(world: World, *names: str) -> None:
    for name in names:
        world.catalog.announce(world.engine(name), actor=name)


def _attest(world: World, version: Digest, *names: str) -> None:
    for name in names:
        _say(world, version, name, at=0)


def _say(world: World, version: Digest, engine: str, *, at: int) -> None:
    said = {"engine": engine, "observed_at": f"2026-01-01T00:{at:02}:00.000000Z"}
    world.catalog.attest(attested(world.finding(version).model_copy(update=said)), actor=engine)


def _on(world: World, version: Digest) -> set[str]:
    return {slot.engine for slot in world.catalog.slots(version)}


def test_a_version_leaves_shared_engines_when_its_own_engine_holds_it(world: World) -> None:
    version = world.promoted()
    _up(world, "engine-0", "engine-1", "engine-2")
    _attest(world, version, "engine-1", "engine-2")
    before = State.of(world.catalog.snapshot())
    assert world.catalog.isolate_tenant("bank_a", DEDICATED, actor="t") == DEDICATED
    assert _on(world, version) == {"engine-1", "engine-2"}
    _attest(world, version, "engine-0")
    assert _on(world, version) == {"engine-0"}
    news = world.catalog.changes(before.position.size, before.position.root)
    assert isinstance(news, Delta)
    assert before.after(news).snapshot() == world.catalog.snapshot()
    assert world.catalog.verify() == []
    # Whoever says otherwise is heard, and serves nothing.
    _say(world, version, "engine-1", at=5)
    assert _on(world, version) == {"engine-0"}
    # Its engine is down: nobody answers for it, and nobody may begin to.
    world.catalog.announce(world.engine("engine-0", up=False), actor="engine-0")
    _say(world, version, "engine-1", at=6)
    assert _on(world, version) == set()
    assert assigned(State.of(world.catalog.snapshot()), NOW)["engine-1"].versions == ()
    # And back: everywhere is right again.
    world.catalog.isolate_tenant("bank_a", Isolation(), actor="t")
    _say(world, version, "engine-1", at=7)
    assert _on(world, version) == {"engine-1"}
    assert world.catalog.verify() == []


def test_what_is_at_home_already_moves_at_once(world: World) -> None:
    version = world.promoted()
    _up(world, "engine-0", "engine-1")
    _attest(world, version, "engine-0", "engine-1")
    before = State.of(world.catalog.snapshot())
    world.catalog.isolate_tenant("bank_a", DEDICATED, actor="t")
    assert _on(world, version) == {"engine-0"}
    news = world.catalog.changes(before.position.size, before.position.root)
    assert isinstance(news, Delta)
    assert before.after(news).snapshot() == world.catalog.snapshot()


def test_others_leave_an_engine_that_was_given_away_when_they_have_another(world: World) -> None:
    version = world.promoted()
    _up(world, "engine-0", "engine-1")
    _attest(world, version, "engine-0")
    given = Isolation(level=Level.DEDICATED, engines=("engine-0",))
    world.catalog.isolate_tenant("retail_b", given, actor="t")
    assert _on(world, version) == {"engine-0"}
    _attest(world, version, "engine-1")
    assert _on(world, version) == {"engine-1"}


def test_the_engine_that_serves_fewest_others_is_chosen(world: World) -> None:
    mine, other = world.promoted(), world.promoted(AdapterName("retail_b", "ledger"))
    _up(world, "engine-0", "engine-1", "engine-2")
    _attest(world, mine, "engine-0")
    _attest(world, other, "engine-0", "engine-2")
    wish = Isolation(level=Level.DEDICATED)
    assert world.catalog.isolate_tenant("bank_a", wish, actor="t").engines == ("engine-1",)
    # Asked again, it keeps what it has; the other one does not get it.
    assert world.catalog.isolate_tenant("bank_a", wish, actor="t").engines == ("engine-1",)
    with pytest.raises(EngineGiven):
        world.catalog.isolate_tenant(
            "retail_b", Isolation(level=Level.DEDICATED, engines=("engine-1",)), actor="t"
        )


def test_the_last_shared_engine_is_not_taken_from_those_who_need_it(world: World) -> None:
    world.promoted()
    world.promoted(AdapterName("retail_b", "ledger"))
    _up(world, "engine-0")
    with pytest.raises(EngineNeeded):
        world.catalog.isolate_tenant("bank_a", DEDICATED, actor="t")
    assert world.catalog.tenant("bank_a").isolation == Isolation()
    world.catalog.isolate_tenant("bank_a", DEDICATED, force=True, actor="t")
    assert world.catalog.tenant("bank_a").isolation == DEDICATED


def test_what_does_not_fit_together_is_refused(world: World) -> None:
    with pytest.raises(InvalidInput):  # no version, so no base to look for an engine of
        world.catalog.isolate_tenant("bank_a", Isolation(level=Level.DEDICATED), actor="t")
    world.promoted()
    with pytest.raises(EngineNotFound):
        world.catalog.isolate_tenant("bank_a", DEDICATED, actor="t")
    with pytest.raises(EngineNotFound):
        world.catalog.isolate_tenant("bank_a", Isolation(level=Level.DEDICATED), actor="t")
    with pytest.raises(InvalidInput):
        world.catalog.create_tenant(
            Tenant(id="saas_c", display_name="c", isolation=Isolation(level=Level.PINNED)), actor="t"
        )


def test_other_changes_of_a_tenant_leave_it_where_it_is_and_name_no_engine(world: World) -> None:
    world.promoted()
    _up(world, "engine-0", "engine-1")
    world.catalog.isolate_tenant("bank_a", DEDICATED, actor="t")
    world.catalog.set_quota("bank_a", Quota(tokens_per_day=5), actor="t")
    found = world.catalog.tenant("bank_a")
    assert (found.isolation, found.quota.tokens_per_day) == (DEDICATED, 5)
    snapshot = world.catalog.snapshot()
    assert isinstance(snapshot, Snapshot)
    assert found in snapshot.tenants
    assert all("engine-0" not in entry.model_dump_json() for entry in world.catalog.entries(tenant="bank_a"))
    assert world.catalog.verify() == []


def test_the_fleet_at_a_look(world: World) -> None:
    version = world.promoted()
    _up(world, "engine-0", "engine-1")
    _attest(world, version, "engine-1")
    world.catalog.isolate_tenant("bank_a", DEDICATED, actor="t")
    own, shared = world.catalog.fleet().engines
    assert (own.state.engine, own.exclusive, shared.exclusive) == ("engine-0", "bank_a", None)
    assert [(one.version, one.why, one.attested, one.leaving) for one in own.held] == [
        (version, "live", False, False)
    ]
    assert [(one.why, one.attested, one.leaving) for one in shared.held] == [("live", True, True)]
    assert world.catalog.fleet().unplaced == ()
    world.catalog.announce(world.engine("engine-0", up=False), actor="engine-0")
    assert [one.attested for one in world.catalog.fleet().engines[1].held] == [True]


def test_a_shared_engine_that_is_given_away_starts_again_before_it_is_its_tenants(world: World) -> None:
    version, other = world.promoted(), world.promoted(AdapterName("retail_b", "assistant"))
    _up(world, "engine-0", "engine-1")
    _attest(world, version, "engine-0", "engine-1")
    _attest(world, other, "engine-0", "engine-1")
    now = world.catalog.isolate_tenant("bank_a", DEDICATED, actor="t")
    assert now.unclean == (world.engine("engine-0").boot,)
    assert _on(world, version) == {"engine-0", "engine-1"}, "nothing ends before it is where it belongs"
    assert _on(world, other) == {"engine-1"}
    assert world.catalog.isolate_tenant("bank_a", DEDICATED, actor="t") == now
    share = assigned(State.of(world.catalog.snapshot()), NOW)["engine-0"]
    assert (share.afresh, share.versions) == (True, ())
    world.catalog.announce(
        world.engine("engine-0").model_copy(update={"boot": "another-boot-0001"}), actor="engine-0"
    )
    share = assigned(State.of(world.catalog.snapshot()), NOW)["engine-0"]
    assert not share.afresh
    assert [each.version for each in share.versions] == [version]
    assert world.catalog.verify() == []


def test_an_engine_that_was_to_be_merged_and_is_not_yet_starts_again_as_well(world: World) -> None:
    version, other = world.promoted(), world.promoted(AdapterName("retail_b", "assistant"))
    _up(world, "engine-0", "engine-1")
    _attest(world, version, "engine-0", "engine-1")
    _attest(world, other, "engine-0", "engine-1")
    merged = DEDICATED.model_copy(update={"level": Level.MERGED})
    world.catalog.isolate_tenant("bank_a", merged, actor="t")
    now = world.catalog.isolate_tenant("bank_a", DEDICATED, actor="t")
    assert now.unclean == (world.engine("engine-0").boot,)
    assert world.catalog.isolate_tenant("bank_a", DEDICATED, actor="t") == now


def test_a_tenant_is_not_pinned_where_no_slot_is_left_to_keep(world: World) -> None:
    version = world.promoted()
    small = world.engine("engine-0").model_copy(update={"max_loras": 1})
    world.catalog.announce(small, actor="engine-0")
    _attest(world, version, "engine-0")
    with pytest.raises(SlotsTaken, match="1 versions"):
        world.catalog.isolate_tenant("bank_a", Isolation(level=Level.PINNED), actor="t")
    assert world.catalog.tenant("bank_a").isolation == Isolation()
    world.catalog.isolate_tenant("bank_a", Isolation(level=Level.PINNED), force=True, actor="t")
    (each,) = assigned(State.of(world.catalog.snapshot()), NOW)["engine-0"].versions
    assert not each.pinned, "it is served, as before"


def test_what_a_caller_says_of_unclean_boots_counts_for_nothing(world: World) -> None:
    world.promoted()
    _up(world, "engine-0", "engine-1")
    said = DEDICATED.model_copy(update={"unclean": ("made-up-boot",)})
    assert world.catalog.isolate_tenant("bank_a", said, actor="t") == DEDICATED


def test_documents_of_before_keep_their_bytes() -> None:
    assert b"unclean" not in DEDICATED.canonical()
    assert Isolation.parse(DEDICATED.canonical()) == DEDICATED
    marked = DEDICATED.model_copy(update={"unclean": ("engine-0-boot",)})
    assert Isolation.parse(marked.canonical()) == marked
