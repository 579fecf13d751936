"""What routers may rely on when they tell each other what they let through: the fake, and the real thing on
each database and over HTTP."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry.clock import ManualClock
from registry.counting import BEAT_SECONDS, SLICE_SECONDS, Count, CountAnswer, CountReport, Kind
from router.ports import Counters
from router.testing import FakeCounters
from server.api.app import create_app
from server.api.client import ControlClient
from tests.support.control import SERVICE_TOKEN, control_world
from tests.support.postgres import PostgresServer
from tests.support.registries import World, open_world
from tests.support.remote import serving
from tests.support.stores import fresh

BANK, SHOP = "tenant/bank_a", "tenant/shop_b"


class _OfCatalog:
    def __init__(self, world: World) -> None:
        self._catalog = world.catalog

    async def exchange(self, report: CountReport) -> CountAnswer:
        return self._catalog.exchange_counts(report)


@dataclass
class Meeting:
    counters: Counters
    clock: ManualClock

    @property
    def slot(self) -> int:
        return int(self.clock.now().timestamp()) // SLICE_SECONDS

    async def tell(
        self, writer: str, seq: int, *counts: tuple[str, Kind, int, int], about: tuple[str, ...] = (BANK,)
    ) -> dict[tuple[str, str, int], int]:
        answer = await self.counters.exchange(
            CountReport(
                writer=writer,
                seq=seq,
                counts=tuple(
                    Count(subject=subject, kind=kind, slot=slot, value=value)
                    for subject, kind, slot, value in counts
                ),
                about=about,
            )
        )
        self.routers = answer.routers
        return {(count.subject, count.kind, count.slot): count.value for count in answer.counts}


@contextlib.asynccontextmanager
async def _meeting(kind: str, folder: Path, server: Callable[[], PostgresServer]) -> AsyncIterator[Meeting]:
    clock = ManualClock()
    if kind == "fake":
        yield Meeting(FakeCounters(lambda: clock.now().timestamp()), clock)
    elif kind == "http":
        with control_world(folder) as bench, serving(create_app(bench.control)) as url:
            async with ControlClient(url, SERVICE_TOKEN) as client:
                yield Meeting(client, bench.clock)
    else:
        with fresh(kind, folder, server) as address:
            world = open_world(folder, store=address, clock=clock)
            try:
                yield Meeting(_OfCatalog(world), clock)
            finally:
                world.database.close()


@pytest.fixture(params=("fake", "sqlite", "postgresql", "http"))
async def meeting(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Meeting]:
    async with _meeting(request.param, tmp_path, lambda: request.getfixturevalue("postgres")) as found:
        yield found


async def test_each_hears_what_the_others_counted(meeting: Meeting) -> None:
    now = meeting.slot
    assert await meeting.tell("one", 1, (BANK, "requests", now, 3)) == {}
    assert await meeting.tell("two", 1, (BANK, "requests", now, 4), (BANK, "tokens", now, 50)) == {
        (BANK, "requests", now): 3
    }
    assert await meeting.tell("three", 1) == {(BANK, "requests", now): 7, (BANK, "tokens", now): 50}
    assert await meeting.tell("one", 2) == {(BANK, "requests", now): 4, (BANK, "tokens", now): 50}


async def test_only_of_those_who_were_asked_about(meeting: Meeting) -> None:
    now = meeting.slot
    await meeting.tell("one", 1, (BANK, "requests", now, 3), (SHOP, "requests", now, 9))
    assert await meeting.tell("two", 1, about=(SHOP,)) == {(SHOP, "requests", now): 9}
    assert await meeting.tell("two", 2, about=()) == {}


async def test_the_same_report_counts_once_and_an_old_one_not_at_all(meeting: Meeting) -> None:
    now = meeting.slot
    for _ in range(3):  # its answer was lost
        await meeting.tell("one", 1, (BANK, "requests", now, 3))
    assert await meeting.tell("two", 1) == {(BANK, "requests", now): 3}
    await meeting.tell("one", 3, (BANK, "requests", now, 5))
    await meeting.tell("one", 2, (BANK, "requests", now, 4))  # came late
    assert await meeting.tell("two", 2) == {(BANK, "requests", now): 5}
    await meeting.tell("one", 4, (BANK, "requests", now, 1))  # some were given back
    assert await meeting.tell("two", 3) == {(BANK, "requests", now): 1}


async def test_a_router_that_starts_again_keeps_what_it_had_counted(meeting: Meeting) -> None:
    now = meeting.slot
    await meeting.tell("one.first", 9, (BANK, "day", now // 17280, 800))
    assert await meeting.tell("one.second", 1, (BANK, "day", now // 17280, 50)) == {
        (BANK, "day", now // 17280): 800
    }


async def test_what_is_past_is_forgotten(meeting: Meeting) -> None:
    now = meeting.slot
    day = now // 17280
    await meeting.tell(
        "one",
        1,
        (BANK, "requests", now, 3),
        (BANK, "running", 0, 2),
        (BANK, "day", day, 7),
        ("", "router", 0, 1),
    )
    await meeting.tell("two", 1, ("", "router", 0, 1))
    assert meeting.routers == 1
    meeting.clock.advance(BEAT_SECONDS - 1)
    assert (BANK, "running", 0) in await meeting.tell("two", 2, ("", "router", 0, 1))
    meeting.clock.advance(2)
    assert await meeting.tell("two", 3) == {(BANK, "requests", now): 3, (BANK, "day", day): 7}
    assert meeting.routers == 0
    meeting.clock.advance(300)
    assert await meeting.tell("two", 4) == {(BANK, "day", day): 7}
    meeting.clock.advance(2 * 86_400)
    assert await meeting.tell("two", 5) == {}


async def test_a_clock_that_is_far_ahead_leaves_nothing_for_ever(meeting: Meeting) -> None:
    await meeting.tell("one", 1, (BANK, "requests", meeting.slot + 10**7, 3))
    meeting.clock.advance(3 * 86_400)
    assert await meeting.tell("two", 1) == {}
