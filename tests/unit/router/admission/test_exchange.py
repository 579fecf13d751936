"""Limits over routers: two of them, one tenant, one place where they meet."""

import contextlib

import pytest

from registry.clock import ManualClock
from registry.models import Quota, Role
from router.admission import Admission, CountExchange, Hours, Patience, Queue, Ticket
from router.admission.exchange import FOLLOW_EVERY
from router.errors import RateLimited
from router.metering import Usage
from router.tables import Principal, Tables, compile_tables
from router.testing import FakeCounters, Scene


class World:
    """What routers share: time, a place to meet, and bank_a's quota."""

    def __init__(self, **limits: int) -> None:
        self.clock = ManualClock()
        self.ticks = 0.0
        self.counters = FakeCounters(lambda: self.clock.now().timestamp())
        scene = Scene()
        scene.key("bank_a")
        scene.tenants["bank_a"] = scene.tenants["bank_a"].model_copy(update={"quota": Quota(**limits)})
        self.caller = Principal("bank_a", scene.keys[0].id, Role.INFERENCE)
        self.tables: Tables = compile_tables(scene.snapshot())
        self.one, self.two = Router(self, "one"), Router(self, "two")
        for router in (self.one, self.two):
            router.ask(0).forget()  # seen before, lately

    def pass_(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.ticks += seconds

    async def meet(self) -> None:
        """Each hears of all."""
        for router in (self.one, self.two, self.one):
            self.pass_(FOLLOW_EVERY)
            await router.exchange.once()


class Router:
    def __init__(self, world: World, name: str) -> None:
        self.world = world
        hours = Hours(wall=world.clock.now, ticks=lambda: world.ticks)
        self.admission = Admission(hours)
        self.queue = Queue(Patience(running=8), ticks=lambda: world.ticks)
        self.exchange = CountExchange(
            world.counters, self.admission, self.queue, hours, writer=name, ticks=lambda: world.ticks
        )

    def ask(self, tokens: int = 36) -> Ticket:
        """100 tokens more than ``tokens``."""
        return self.admission.admit(self.world.caller, self.world.tables, 36, tokens)

    def flood(self) -> int:
        """How many requests get in."""
        for count in range(1000):
            try:
                self.ask()
            except RateLimited:
                return count
        return 1000


async def test_a_limit_is_one_for_all_routers() -> None:
    world = World(requests_per_minute=10)
    for _ in range(4):
        world.one.ask()
    await world.meet()
    assert world.two.flood() == 6
    await world.meet()
    assert world.one.flood() == 0
    world.pass_(66)
    assert world.one.flood() == 10


async def test_what_was_not_heard_yet_is_the_overshoot_and_no_more() -> None:
    world = World(requests_per_minute=10)
    assert (world.one.flood(), world.two.flood()) == (10, 10)  # within one exchange
    await world.meet()
    assert (world.one.flood(), world.two.flood()) == (0, 0)
    world.pass_(66)
    passed = 0
    for _ in range(8):  # a minute of turns, one exchange apart
        await world.meet()
        for router in (world.one, world.two):
            with contextlib.suppress(RateLimited):
                router.ask()
                passed += 1
    assert passed <= 11


async def test_tokens_given_back_are_given_back_everywhere() -> None:
    world = World(tokens_per_minute=1000)
    ticket = world.one.ask(900)
    with pytest.raises(RateLimited):
        world.one.ask(100)
    await world.meet()
    with pytest.raises(RateLimited):
        world.two.ask(100)
    ticket.settle(Usage(20, 80))
    await world.meet()
    world.two.ask(800)
    await world.meet()
    with pytest.raises(RateLimited):
        world.one.ask(1)


async def test_requests_at_a_time_are_counted_over_routers_until_one_is_gone() -> None:
    world = World(concurrent_requests=2)
    first, _ = world.one.ask(), world.one.ask()
    await world.meet()
    with pytest.raises(RateLimited):
        world.two.ask()
    first.settle(Usage(1, 1))
    await world.meet()
    second = world.two.ask()
    second.settle(Usage(1, 1))
    for _ in range(30):  # long answers stay believed in
        world.pass_(1)
        await world.meet()
    world.two.ask()
    with pytest.raises(RateLimited):
        world.two.ask()
    world.pass_(11)  # the other was killed, with a request under way
    await world.two.exchange.once()
    world.two.ask()


async def test_a_lost_answer_counts_nothing_twice() -> None:
    world = World(requests_per_minute=10)
    world.one.ask()
    for _ in range(4):
        world.counters.answers_lost = 1
        with pytest.raises(ConnectionError):
            await world.one.exchange.once()
    await world.meet()
    assert world.two.flood() == 9


async def test_without_the_control_plane_local_limits_go_on_with_what_was_heard() -> None:
    world = World(requests_per_minute=10)
    for _ in range(4):
        world.one.ask()
    await world.meet()
    world.counters.failure = OSError("gone")
    with pytest.raises(OSError, match="gone"):
        await world.two.exchange.once()
    assert world.two.flood() == 6
    world.pass_(66)
    assert world.two.flood() == 10
    world.counters.failure = None
    await world.meet()  # what was counted meanwhile is told then
    assert world.one.flood() == 0


async def test_a_router_that_starts_again_hears_what_it_had_let_through() -> None:
    world = World(tokens_per_day=1000)
    world.one.ask(700).settle(None)
    await world.meet()
    again = Router(world, "one.again")
    again.ask(0).settle(Usage(0, 0))
    await again.exchange.once()
    again.ask(50).forget()
    with pytest.raises(Exception, match="tokens per day"):
        again.ask(300)


async def test_routers_that_meet_share_the_engines() -> None:
    world = World()
    await world.meet()
    assert (world.one.queue._routers, world.two.queue._routers) == (2, 2)
    for _ in range(12):
        world.pass_(1)
        await world.one.exchange.once()
    assert world.one.queue._routers == 1


async def test_a_router_with_nothing_to_tell_is_quiet() -> None:
    world = World(requests_per_minute=10)
    for _ in range(12):
        await world.one.exchange.once()
    assert len(world.counters.reports) == 1
    world.one.ask()
    await world.one.exchange.once()
    assert len(world.counters.reports) == 2
    world.pass_(FOLLOW_EVERY)
    await world.one.exchange.once()
    assert len(world.counters.reports) == 3
    world.pass_(601)
    await world.one.exchange.once()
    assert world.counters.reports[-1].about == ()  # forgotten; only that the router is there


async def test_many_accounts_are_told_in_parts() -> None:
    scene, world = Scene(), World()
    for number in range(700):
        scene.key(f"t{number}")
        tenant = scene.tenants[f"t{number}"]
        scene.tenants[tenant.id] = tenant.model_copy(update={"quota": Quota(requests_per_minute=1)})
    tables = compile_tables(scene.snapshot())
    for key in scene.keys:
        world.one.admission.admit(Principal(str(key.tenant), key.id, Role.INFERENCE), tables, 1, 1)
    await world.one.exchange.once()
    assert [len(report.about) for report in world.counters.reports] == [300, 300, 100]
    for key in scene.keys:
        world.two.admission.admit(Principal(str(key.tenant), key.id, Role.INFERENCE), tables, 1, 1)
    await world.two.exchange.once()
    for key in scene.keys:
        with pytest.raises(RateLimited):
            world.two.admission.admit(Principal(str(key.tenant), key.id, Role.INFERENCE), tables, 1, 1)
