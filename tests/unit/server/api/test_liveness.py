import logging
from pathlib import Path

import pytest

from server.api.app import create_app
from server.api.client import ControlClient
from server.api.liveness import ACTOR, Liveness, Watch
from tests.support.control import SERVICE_TOKEN, ControlWorld, control_world
from tests.support.registries import BOOT, World
from tests.support.remote import serving


class Ticks:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


def _up(world: World) -> list[bool]:
    return [engine.up for engine in world.catalog.engines()]


def test_an_engine_whose_agent_is_silent_is_announced_down(
    bench: ControlWorld, ticks: Ticks, caplog: pytest.LogCaptureFixture
) -> None:
    world = bench.world
    version = world.promoted()
    world.catalog.announce(world.engine(), actor="engine:engine-0")
    world.catalog.attest(world.attestation(version), actor="engine")
    liveness = Liveness(world.catalog, ticks=ticks)
    assert liveness.sweep() == ()
    ticks.now += 29
    assert liveness.renew("engine-0", BOOT)
    ticks.now += 29
    assert liveness.sweep() == ()
    assert world.catalog.slots()
    ticks.now += 1.1
    with caplog.at_level(logging.WARNING):
        assert liveness.sweep() == ("engine-0",)
    assert "engine-0" in caplog.text
    assert (_up(world), world.catalog.slots()) == ([False], ())
    assert world.catalog.entries(world.catalog.log_size() - 1)[0].actor == ACTOR
    assert liveness.sweep() == ()
    # It was only away: it hears that it has to announce itself, does so, and has its time again.
    assert not liveness.renew("engine-0", BOOT)
    world.catalog.announce(world.engine(), actor="engine:engine-0")
    assert liveness.sweep() == ()
    assert _up(world) == [True]


def test_a_control_plane_that_was_away_takes_nobody_down_at_once(bench: ControlWorld, ticks: Ticks) -> None:
    world = bench.world
    world.catalog.announce(world.engine(), actor="engine:engine-0")
    ticks.now += 10_000
    liveness = Liveness(world.catalog, ticks=ticks)
    assert liveness.sweep() == ()
    ticks.now += 30
    assert liveness.sweep() == ()
    ticks.now += 0.1
    assert liveness.sweep() == ("engine-0",)


def test_another_boot_has_a_time_of_its_own_and_the_old_one_renews_nothing(
    bench: ControlWorld, ticks: Ticks
) -> None:
    world = bench.world
    world.catalog.announce(world.engine(), actor="engine:engine-0")
    liveness = Liveness(world.catalog, ticks=ticks)
    liveness.sweep()
    ticks.now += 25
    world.catalog.announce(world.engine(boot="boot-0002"), actor="engine:engine-0")
    liveness.sweep()
    ticks.now += 25
    assert not liveness.renew("engine-0", BOOT)
    assert not liveness.renew("engine-9", BOOT)
    assert liveness.sweep() == ()
    ticks.now += 6
    assert liveness.sweep() == ("engine-0",)


def test_one_that_must_not_judge_judges_nobody(bench: ControlWorld, ticks: Ticks) -> None:
    bench.world.catalog.announce(bench.world.engine(), actor="engine:engine-0")
    liveness = Liveness(bench.world.catalog, silence=0, ticks=ticks)
    liveness.sweep()
    ticks.now += 10_000
    assert liveness.sweep() == ()
    with Watch(liveness):
        assert _up(bench.world) == [True]


async def test_an_agent_is_told_over_http_whether_it_counts_as_up(tmp_path: Path) -> None:
    with control_world(tmp_path) as bench, serving(create_app(bench.control)) as url:
        async with ControlClient(url, SERVICE_TOKEN) as client:
            assert not await client.alive("engine-0", BOOT)
            await client.announce("engine-0", bench.world.announced())
            assert await client.alive("engine-0", BOOT)
            assert not await client.alive("engine-0", "boot-0002")
    assert bench.control.liveness.sweep() == ()
