"""What discovery may do to engines: keep one out, take one down, show who is missing. Never more."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from registry.catalog.fleet import Doubt, Missing
from registry.models import EngineState, Isolation, Level
from server.api.app import create_app
from server.api.client import ControlClient
from server.api.expected import ACTOR, GRACE, Expected
from server.api.liveness import Watch
from server.engines.discovery.sighting import Address, Listed
from server.errors import ControlRefused, EngineNotExpected
from server.testing.fake_discovery import InMemoryDiscovery
from tests.support.control import SERVICE_TOKEN, ControlWorld, control_world
from tests.support.registries import World
from tests.support.remote import serving

HERE = frozenset({Address("127.0.0.1", 8001)})
ELSEWHERE = frozenset({Address("127.0.0.1", 9999)})


class Ticks:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


def listed(*names: str) -> dict[str, Listed]:
    return {name: Listed(addresses=HERE) for name in names}


def engine(world: World, name: str, *, boot: str | None = None) -> EngineState:
    return world.engine(name, boot=boot or f"{name}-boot-1")


def announce(world: World, *names: str) -> None:
    for name in names:
        world.catalog.announce(engine(world, name), actor=f"engine:{name}")


def up(world: World) -> set[str]:
    return {each.engine for each in world.catalog.engines() if each.up}


def expected(world: World, ticks: Ticks, *sources: InMemoryDiscovery, refuse: bool = True) -> Expected:
    return Expected(world.catalog, sources, refuse=refuse, ticks=ticks)


def doubts(world: World, judge: Expected) -> dict[str, Doubt]:
    return {each.engine: each.why for each in judge.shown(world.catalog.fleet()).doubted}


def test_without_discovery_whoever_announces_itself_is_taken(bench: ControlWorld, ticks: Ticks) -> None:
    judge = expected(bench.world, ticks)
    judge.check(engine(bench.world, "engine-9"))
    announce(bench.world, "engine-9")
    ticks.now += 100
    assert judge.sweep() == ()
    fleet = bench.world.catalog.fleet()
    assert judge.shown(fleet) is fleet


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (None, Doubt.NOT_LISTED),
        (Listed(addresses=ELSEWHERE), Doubt.ELSEWHERE),
        (Listed(addresses=frozenset()), Doubt.ELSEWHERE),
        (Listed(addresses=HERE, ending=True), Doubt.ENDING),
        (Listed(base="another"), Doubt.OTHER_BASE),
    ],
)
def test_an_announcement_that_discovery_contradicts_is_refused(
    one: Listed | None, why: Doubt, bench: ControlWorld, ticks: Ticks
) -> None:
    source = InMemoryDiscovery({"engine-1": Listed()} | ({"engine-0": one} if one else {}), ticks=ticks)
    judge = expected(bench.world, ticks, source)
    with pytest.raises(EngineNotExpected) as refused:
        judge.check(engine(bench.world, "engine-0"))
    assert refused.value.facts["why"] is why
    # It may always say that it goes.
    judge.check(engine(bench.world, "engine-0").model_copy(update={"up": False}))
    # Flagging lets it in, unless its pod is ending: that is no question of trust.
    flagging = expected(bench.world, ticks, source, refuse=False)
    if why is Doubt.ENDING:
        with pytest.raises(EngineNotExpected):
            flagging.check(engine(bench.world, "engine-0"))
    else:
        flagging.check(engine(bench.world, "engine-0"))


@pytest.mark.parametrize(
    "one",
    [Listed(), Listed(addresses=HERE), Listed(addresses=HERE | ELSEWHERE, base="tiny"), Listed(base="tiny")],
)
def test_one_that_is_listed_so_is_taken(one: Listed, bench: ControlWorld, ticks: Ticks) -> None:
    expected(bench.world, ticks, InMemoryDiscovery({"engine-0": one})).check(engine(bench.world, "engine-0"))


def test_every_source_has_to_agree(bench: ControlWorld, ticks: Ticks) -> None:
    names, pods = InMemoryDiscovery(listed("engine-0")), InMemoryDiscovery(listed("engine-1"))
    judge = expected(bench.world, ticks, names, pods)
    for name in ("engine-0", "engine-1"):
        with pytest.raises(EngineNotExpected):
            judge.check(engine(bench.world, name))
    pods.engines = listed("engine-0")
    judge.check(engine(bench.world, "engine-0"))


def test_while_a_source_was_never_heard_nobody_new_gets_in_and_nobody_is_taken_down(
    bench: ControlWorld, ticks: Ticks
) -> None:
    announce(bench.world, "engine-0")
    judge = expected(bench.world, ticks, InMemoryDiscovery(None))
    judge.check(engine(bench.world, "engine-0"))  # known so already
    with pytest.raises(EngineNotExpected, match="has not answered yet"):
        judge.check(engine(bench.world, "engine-0", boot="another-boot"))
    for _ in range(5):
        assert judge.sweep() == ()
        ticks.now += 60
    assert up(bench.world) == {"engine-0"}
    assert judge.figures()["discovery_age_seconds"] == float("inf")
    expected(bench.world, ticks, InMemoryDiscovery(None), refuse=False).check(engine(bench.world, "engine-1"))


@pytest.mark.parametrize("refuse", [True, False])
def test_a_pod_that_is_ending_is_down_at_the_next_look(
    refuse: bool, bench: ControlWorld, ticks: Ticks, caplog: pytest.LogCaptureFixture
) -> None:
    world = bench.world
    version = world.promoted()
    world.catalog.announce(world.engine(), actor="engine:engine-0")
    world.catalog.attest(world.attestation(version), actor="engine")
    source = InMemoryDiscovery(listed("engine-0"))
    judge = expected(world, ticks, source, refuse=refuse)
    assert judge.sweep() == ()
    source.engines = {"engine-0": Listed(addresses=HERE, ending=True)}
    with caplog.at_level(logging.WARNING):
        assert judge.sweep() == ("engine-0",)
    assert (up(world), world.catalog.slots()) == (set(), ())
    assert world.catalog.entries(world.catalog.log_size() - 1)[0].actor == ACTOR
    assert "engine-0 counts as down: ending" in caplog.text
    assert judge.sweep() == ()
    with pytest.raises(EngineNotExpected):  # its agent still runs, and may not come back
        judge.check(world.engine())
    # The next pod of its name has an address of its own.
    source.engines = listed("engine-0")
    judge.check(engine(world, "engine-0", boot="boot-0002"))


@pytest.mark.parametrize("refuse", [True, False])
@pytest.mark.parametrize("after", [{}, {"engine-0": Listed(addresses=ELSEWHERE)}])
def test_one_that_is_gone_or_moved_is_down_once_that_is_sure(
    refuse: bool, after: dict[str, Listed], bench: ControlWorld, ticks: Ticks
) -> None:
    announce(bench.world, "engine-0", "engine-1")
    source = InMemoryDiscovery(listed("engine-0", "engine-1"))
    judge = expected(bench.world, ticks, source, refuse=refuse)
    assert judge.sweep() == ()
    source.engines = listed("engine-1") | after
    assert judge.sweep() == ()
    ticks.now += GRACE - 0.1
    assert judge.sweep() == ()
    source.engines = listed("engine-0", "engine-1")  # only moved from one slice to another
    assert judge.sweep() == ()
    source.engines = listed("engine-1") | after
    assert judge.sweep() == ()
    ticks.now += GRACE
    assert judge.sweep() == ("engine-0",)
    assert up(bench.world) == {"engine-1"}


def test_one_that_was_never_listed_is_kept_out_or_only_shown(bench: ControlWorld, ticks: Ticks) -> None:
    announce(bench.world, "engine-0", "engine-9")
    source = InMemoryDiscovery(listed("engine-0"), ticks=ticks)
    flagging = expected(bench.world, ticks, source, refuse=False)
    refusing = expected(bench.world, ticks, source)
    for judge in (flagging, refusing):
        assert judge.sweep() == ()
        assert doubts(bench.world, judge) == {"engine-9": Doubt.NOT_LISTED}
    ticks.now += GRACE
    assert flagging.sweep() == ()
    assert flagging.figures()["engines_doubted"] == 1
    assert refusing.sweep() == ("engine-9",)
    assert up(bench.world) == {"engine-0"}


def test_a_flagged_one_stays_even_after_a_source_was_unheard_of(bench: ControlWorld, ticks: Ticks) -> None:
    """That nobody has said anything against it yet is no agreement."""
    announce(bench.world, "engine-0", "engine-9")
    source = InMemoryDiscovery(None)
    judge = expected(bench.world, ticks, source, refuse=False)
    judge.sweep()
    source.engines = listed("engine-0")
    for _ in range(3):
        assert judge.sweep() == ()
        ticks.now += GRACE


@pytest.mark.parametrize("refuse", [True, False])
@pytest.mark.parametrize("after", [(), ("engine-7",)])
def test_a_list_that_agrees_with_nobody_who_is_up_takes_nobody_down(
    refuse: bool, after: Iterable[str], bench: ControlWorld, ticks: Ticks
) -> None:
    """A Service that was deleted, a selector that was mistyped, a file that was emptied."""
    announce(bench.world, "engine-0", "engine-1")
    source = InMemoryDiscovery(listed("engine-0", "engine-1"))
    judge = expected(bench.world, ticks, source, refuse=refuse)
    judge.sweep()
    source.engines = listed(*after)
    for _ in range(5):
        assert judge.sweep() == ()
        ticks.now += 60
    assert up(bench.world) == {"engine-0", "engine-1"}
    assert set(doubts(bench.world, judge)) == {"engine-0", "engine-1"}
    # One source that went blind does not blind the others.
    other = InMemoryDiscovery({"engine-0": Listed(), "engine-1": Listed(ending=True)})
    both = expected(bench.world, ticks, source, other, refuse=refuse)
    assert both.sweep() == ("engine-1",)


def test_who_is_missing_is_shown_with_since_when(bench: ControlWorld, ticks: Ticks) -> None:
    world = bench.world
    announce(world, "engine-0", "engine-1")
    names = InMemoryDiscovery(
        {"engine-0": Listed(base="tiny"), "engine-1": Listed(), "engine-2": Listed(base="tiny")}, ticks=ticks
    )
    pods = InMemoryDiscovery(listed("engine-0", "engine-1"), ticks=ticks)
    judge = expected(world, ticks, names, pods)
    assert judge.shown(world.catalog.fleet()).missing == (Missing(engine="engine-2", base="tiny"),)
    judge.sweep()
    ticks.now += 10
    world.catalog.announce(
        engine(world, "engine-0").model_copy(update={"up": False}), actor="engine:engine-0"
    )
    judge.sweep()
    ticks.now += 5
    assert judge.shown(world.catalog.fleet()).missing == (
        Missing(engine="engine-0", base="tiny", announced=True, seconds=5),
        Missing(engine="engine-2", base="tiny", seconds=15),
    )
    assert judge.figures() == {
        "engines_expected": 3,
        "engines_missing": 2,
        "engines_missing_seconds": 15,
        "engines_doubted": 0,
        "discovery_age_seconds": 0,
    }
    # One whose pod ends is still expected by the list of names, and not by Kubernetes alone.
    pods.engines = listed("engine-0") | {"engine-1": Listed(addresses=HERE, ending=True)}
    judge.sweep()
    judge.sweep()
    assert "engine-1" in {each.engine for each in judge.shown(world.catalog.fleet()).missing}
    alone = expected(world, ticks, pods)
    assert {each.engine for each in alone.shown(world.catalog.fleet()).missing} == {"engine-0"}
    # Whoever comes back is not missing, and counts from the start the next time.
    world.catalog.announce(engine(world, "engine-0", boot="boot-0002"), actor="engine:engine-0")
    judge.sweep()
    assert "engine-0" not in {each.engine for each in judge.shown(world.catalog.fleet()).missing}


def test_an_engine_that_is_listed_for_a_tenant_and_not_given_to_it_is_shown(
    bench: ControlWorld, ticks: Ticks
) -> None:
    announce(bench.world, "engine-0", "engine-1")
    source = InMemoryDiscovery({"engine-0": Listed(tenant="bank_a"), "engine-1": Listed()})
    judge = expected(bench.world, ticks, source)
    assert doubts(bench.world, judge) == {"engine-0": Doubt.OTHER_TENANT}
    given = Isolation(level=Level.DEDICATED, engines=("engine-0",))
    bench.world.catalog.isolate_tenant("bank_a", given, actor="test")
    assert doubts(bench.world, judge) == {}


def test_the_watch_looks_even_where_silence_means_nothing(bench: ControlWorld) -> None:
    announce(bench.world, "engine-0")
    control = replace(
        bench.control,
        silence=0.0,
        discoveries=(InMemoryDiscovery({"engine-0": Listed(addresses=HERE, ending=True)}),),
    )
    watch = Watch(control.liveness, control.expected)
    with watch:
        assert watch._thread.is_alive()
    assert [type(each) for each in watch._sweepers] == [Expected]


async def test_an_agent_outside_of_the_list_is_told_so_over_http(tmp_path: Path) -> None:
    with control_world(tmp_path) as bench:
        source = InMemoryDiscovery(listed("engine-1"))
        app = create_app(replace(bench.control, discoveries=(source,)))
        with serving(app) as url:
            async with ControlClient(url, SERVICE_TOKEN) as client:
                with pytest.raises(ControlRefused) as refused:
                    await client.announce("engine-0", bench.world.announced())
                assert refused.value.facts["problem"] == "engine_not_expected"
                assert bench.world.catalog.engines() == ()
                source.engines = listed("engine-0")
                await client.announce("engine-0", bench.world.announced())
                assert up(bench.world) == {"engine-0"}


def test_the_api_and_its_metrics_show_who_is_missing(bench: ControlWorld) -> None:
    announce(bench.world, "engine-0")
    source = InMemoryDiscovery(listed("engine-0", "engine-5"))
    control = replace(bench.control, discoveries=(source,))
    control.expected.sweep()
    with TestClient(create_app(control)) as client:
        answer = client.get("/api/v1/fleet", headers=bench.headers("platform_admin", None))
        (missing,) = answer.json()["missing"]
        assert missing["engine"] == "engine-5"
        assert missing["seconds"] >= 0
        text = client.get("/metrics").text
    assert "tenon_engines_missing 1.0" in text
    assert "tenon_engines_expected 2.0" in text
    assert "engine-5" not in text
    assert "tenon_engines_missing" not in bench.client.get("/metrics").text
