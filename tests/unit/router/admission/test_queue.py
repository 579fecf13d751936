"""The queue in front of engines: who is next, who must never wait for ever, and who is sent away."""

import asyncio
import heapq
import math
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.digests import Digest
from router.admission import Loan, Patience, Queue
from router.errors import Overloaded
from router.places import Place


def version(name: str) -> Digest:
    return Digest.of(name.encode())


def place(engine: str = "engine-0", *, capacity: int = 2) -> Place:
    return Place(engine, "boot-0001", f"http://{engine}", Digest.of(engine.encode()), capacity=capacity)


@dataclass
class Front:
    """A queue whose time stands still unless told."""

    running: int = 2
    waiting: int = 100
    aging: float = 1000.0
    longest: float = 2000.0
    now: float = 0.0
    order: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        patience = Patience(
            running=self.running, waiting=self.waiting, aging=self.aging, longest=self.longest
        )
        self.queue = Queue(patience, ticks=lambda: self.now)

    async def line_up(
        self, name: str, tenant: str, adapter: str, *places: Place, weight: int = 1
    ) -> "asyncio.Task[Place]":
        async def stand() -> Place:
            got = await self.queue.wait(places or (place(),), tenant, version(adapter), weight=weight)
            self.order.append(name)
            return got

        task = asyncio.create_task(stand())
        await asyncio.sleep(0)
        return task

    async def leave(self, tenant: str, adapter: str, at: Place | None = None) -> None:
        self.queue.leave(at or place(), tenant, version(adapter))
        for _ in range(3):
            await asyncio.sleep(0)


async def test_an_engine_with_room_takes_everybody_at_once() -> None:
    front = Front()
    assert front.queue.enter(place(), "a", version("x"))
    assert front.queue.enter(place(), "a", version("x"))
    assert not front.queue.enter(place(), "a", version("x"))
    assert front.queue.enter(place("engine-1"), "a", version("x"))
    await front.leave("a", "x")
    assert front.queue.enter(place(), "b", version("y"))


async def test_no_engine_is_given_more_adapters_than_it_has_slots() -> None:
    front = Front(running=10)
    assert front.queue.enter(place(), "a", version("x"))
    assert front.queue.enter(place(), "b", version("y"))
    assert not front.queue.enter(place(), "c", version("z"))
    task = await front.line_up("c", "c", "z")
    await front.leave("a", "x")
    assert await task == place()


async def test_nobody_passes_those_who_wait() -> None:
    front = Front(running=1)
    front.queue.enter(place(), "a", version("x"))
    task = await front.line_up("b", "b", "y")
    await front.leave("a", "x")
    assert not front.queue.enter(place(), "a", version("x"))
    await task
    assert front.order == ["b"]


async def test_a_hot_tenant_gives_way_to_one_with_less() -> None:
    front = Front(running=2)
    front.queue.enter(place(), "hot", version("x"))
    front.queue.enter(place(), "hot", version("x"))
    tasks = [await front.line_up(f"hot{number}", "hot", "x") for number in range(5)]
    tasks.append(await front.line_up("mild", "mild", "y"))
    await front.leave("hot", "x")
    assert front.order == ["mild"]
    for task in tasks:
        task.cancel()


async def test_a_weight_is_a_share() -> None:
    front = Front(running=4)
    for _ in range(4):
        front.queue.enter(place(), "other", version("z"))
    tasks = []
    for number in range(6):
        tasks.append(await front.line_up("heavy", "heavy", "x", weight=3))
        tasks.append(await front.line_up("light", "light", "x", weight=1))
        front.now += number
    for _ in range(4):
        await front.leave("other", "z")
    assert sorted(front.order) == ["heavy"] * 3 + ["light"]
    for task in tasks:
        task.cancel()


async def test_who_has_waited_long_counts_as_having_none() -> None:
    front = Front(running=2, longest=10, aging=10)
    front.queue.enter(place(), "busy", version("x"))
    front.queue.enter(place(), "other", version("z"))
    old = await front.line_up("old", "busy", "x")
    front.now = 4.0
    young = await front.line_up("young", "mild", "z")
    await front.leave("other", "z")
    assert front.order == ["young"]  # of the tenant with less
    young = await front.line_up("young too", "third", "z")
    front.now = 5.0
    await front.leave("mild", "z")
    assert front.order == ["young", "old"]
    await front.leave("busy", "x")
    await asyncio.gather(old, young)


async def test_a_backlog_delays_nobody_but_its_own() -> None:
    """Turns go round, however long the queue of one and however old."""
    front = Front(running=1, longest=10, aging=10)
    front.queue.enter(place(), "other", version("z"))
    flood = [await front.line_up(f"flood{number}", "flood", "x") for number in range(20)]
    front.now = 6.0
    mild = [await front.line_up(f"mild{number}", "mild", "y") for number in range(2)]
    adapter = await front.line_up("cold adapter", "flood", "cold")
    await front.leave("other", "z")
    for _ in range(4):
        last = front.order[-1]
        tenant = "mild" if "mild" in last else "flood"
        await front.leave(tenant, {"mild": "y"}.get(tenant, "cold" if "cold" in last else "x"))
    assert front.order == ["flood0", "mild0", "cold adapter", "mild1", "flood1"]
    for task in (*flood, *mild, adapter):
        task.cancel()


async def test_an_aged_request_without_a_slot_closes_one() -> None:
    """D13: two hot adapters keep both slots busy, and a third would never be served."""
    front = Front(running=10, aging=1, longest=2)
    for tenant, adapter in (("a", "x"), ("b", "y"), ("b", "y")):
        assert front.queue.enter(place(), tenant, version(adapter))
    cold = await front.line_up("cold", "c", "z")
    hot = await front.line_up("hot", "a", "x")
    assert front.order == ["hot"]  # work goes on beside it, until it has aged
    front.now = 1.5
    await front.leave("a", "x")  # the closing begins with the adapter that has the least to do
    again = await front.line_up("again", "a", "x")
    other = await front.line_up("other", "b", "y")
    assert front.order == ["hot", "other"]
    await front.leave("a", "x")  # its last
    assert front.order == ["hot", "other", "cold"]
    assert not again.done()
    await front.leave("c", "z")
    assert front.order[-1] == "again"
    await asyncio.gather(cold, hot, again, other)


async def test_who_gets_a_slot_takes_along_all_that_wait_for_its_adapter() -> None:
    """Else every turn of a slot would be a batch of one, while many adapters wait."""
    front = Front(running=10, aging=1, longest=2)
    for adapter in ("x", "y"):
        assert front.queue.enter(place(), adapter, version(adapter))
    waiting = [
        await front.line_up(f"{adapter}{number}", adapter, adapter)
        for number in range(3)
        for adapter in ("cold", "colder", "coldest")
    ]
    front.now = 1.5
    await front.leave("x", "x")
    assert front.order == ["cold0", "cold1", "cold2"]
    await front.leave("y", "y")
    assert front.order[3:] == ["colder0", "colder1", "colder2"]
    filled = await front.line_up("filled up", "cold", "cold")
    assert front.order[6:] == ["filled up"]  # its turn is not over
    front.now = 2.6
    late = await front.line_up("late", "colder", "colder")  # of the two, it has the least to do
    for _ in range(3):
        await front.leave("colder", "colder")
    assert front.order[7:] == ["coldest0", "coldest1", "coldest2"]
    assert not late.done()  # others had waited longer for the slot than its turn lasted
    for _ in range(4):
        await front.leave("cold", "cold")
    await asyncio.gather(*waiting, filled, late)


async def test_a_pinned_version_gets_in_at_once_while_others_age_for_the_rest() -> None:
    front = Front(running=100, aging=1.0)
    front.queue.pin({"engine-0": frozenset({version("pinned")})})
    home = place(capacity=4)
    for name in "abc":
        assert front.queue.enter(home, name, version(name))
    assert not front.queue.enter(home, "d", version("d")), "the fourth slot is kept free"
    tasks = [await front.line_up(name, name, name, home) for name in "de"]
    front.now = 5.0  # aged: slots of a, b or c close, and the pinned one's does not open for them
    tasks += [await front.line_up("f", "f", "f", home)]
    assert front.order == []
    for _ in range(3):
        assert front.queue.enter(home, "bank", version("pinned"))
    await front.leave("a", "a", home)
    assert front.order == ["d"], "and the others go on with the slots that are left"
    for _ in range(3):
        await front.leave("bank", "pinned", home)
    assert front.order == ["d"], "what the pinned one gave back is nobody else's"
    await front.leave("b", "b", home)
    await front.leave("c", "c", home)
    assert sorted(front.order) == ["d", "e", "f"]
    await asyncio.gather(*tasks)


async def test_a_pinned_versions_slot_is_never_closed_and_is_free_again_when_it_is_not_pinned() -> None:
    front = Front(running=100, aging=1.0)
    pins = {"engine-0": frozenset({version("pinned")})}
    front.queue.pin(pins)
    front.queue.enter(place(), "bank", version("pinned"))
    front.queue.enter(place(), "a", version("a"))
    front.now = 5.0
    task = await front.line_up("b", "b", "b")
    assert front.queue.enter(place(), "bank", version("pinned"))
    assert not front.queue.enter(place(), "a", version("a")), "it is closed for b"
    await front.leave("bank", "pinned")
    await front.leave("bank", "pinned")
    assert not task.done()
    front.queue.pin({})
    await asyncio.sleep(0)
    assert (await task).engine == "engine-0"


async def test_vllm_is_given_no_more_adapters_than_slots_when_a_version_is_pinned_meanwhile() -> None:
    front = Front(running=100)
    for name in "ab":
        front.queue.enter(place(), name, version(name))
    front.queue.pin({"engine-0": frozenset({version("pinned")})})
    assert not front.queue.enter(place(), "bank", version("pinned"))
    task = await front.line_up("bank", "bank", "pinned")
    other = await front.line_up("c", "c", "c")
    await front.leave("a", "a")
    assert await task == place()
    await front.leave("b", "b")
    assert await other == place()


async def test_routers_share_what_pinned_versions_leave() -> None:
    front = Front(running=100)
    front.queue.share(2)
    front.queue.pin({"engine-0": frozenset({version("p"), version("q")})})
    home = place(capacity=6)
    taken = [name for name in "abcdef" if front.queue.enter(home, name, version(name))]
    assert len(taken) == 2
    assert front.queue.enter(home, "bank", version("p"))
    assert front.queue.enter(home, "bank", version("q"))


class Noted(Loan):
    """Whose task is not to be stopped."""

    def recall(self) -> None:
        self.recalled = True


async def test_what_is_lent_is_no_last_slot() -> None:
    front, home, loan = Front(running=100), place(capacity=3), Noted()
    front.queue.pin({"engine-0": frozenset({version("pinned")})})
    assert front.queue.lend(home, "a", version("x"), loan)
    assert not front.queue.lend(home, "a", version("y"), loan), "the last that is not pinned"
    assert front.queue.lend(home, "a", version("x"), Noted()), "what is at work takes no other slot"
    assert front.queue.lend(home, "bank", version("pinned"), Noted()), "nor does what has its own"
    assert front.queue.enter(home, "b", version("y"))
    assert front.queue.lend(home, "a", version("y"), Noted())


async def test_what_is_lent_is_called_back_when_somebody_waits() -> None:
    front, here, there = Front(running=2), Noted(), Noted()
    assert front.queue.lend(place(), "a", version("x"), here)
    assert front.queue.enter(place(), "b", version("y"))
    assert front.queue.lend(place("engine-1"), "a", version("x"), there)
    assert [loan.recalled for loan in (here, there)] == [False, False]
    task = await front.line_up("c", "c", "z")
    assert [loan.recalled for loan in (here, there)] == [True, False]
    assert not front.queue.lend(place(), "a", version("x"), Noted()), "somebody waits"
    front.queue.give_back(place(), "a", version("x"), here)
    assert await task == place()
    assert [len(lane.lent) for lane in front.queue._lanes.values()] == [0, 1]


async def test_what_was_given_back_is_not_called_back() -> None:
    front, loan = Front(running=1), Noted()
    assert front.queue.lend(place(), "a", version("x"), loan)
    front.queue.give_back(place(), "a", version("x"), loan)
    front.queue.enter(place(), "b", version("y"))
    task = await front.line_up("c", "c", "z")
    assert not loan.recalled
    task.cancel()


async def one_after_another(front: Front, seconds: float, count: int) -> None:
    for _ in range(count):
        assert front.queue.enter(place(capacity=1), "hot", version("hot"))
        front.now += seconds
        await front.leave("hot", "hot", place(capacity=1))


async def test_a_turn_is_twice_as_long_as_requests_were_lately() -> None:
    front = Front(running=10, aging=1)
    await one_after_another(front, 10.0, 5)
    await one_after_another(front, 3.0, 200)  # it is faster now
    assert front.queue._lanes["engine-0"].stay == pytest.approx(3.0, abs=0.05)
    for _ in range(2):
        assert front.queue.enter(place(capacity=1), "hot", version("hot"))
    cold = await front.line_up("cold", "c", "cold", place(capacity=1))
    front.now += 5.0
    await front.leave("hot", "hot", place(capacity=1))
    more = await front.line_up("more", "hot", "hot", place(capacity=1))
    assert front.order == ["more"]  # its turn lasts for six seconds
    front.now += 2.0
    late = await front.line_up("late", "hot", "hot", place(capacity=1))
    assert front.order == ["more"]
    for _ in range(2):
        await front.leave("hot", "hot", place(capacity=1))
    assert front.order == ["more", "cold"]
    await front.leave("c", "cold", place(capacity=1))
    await asyncio.gather(cold, more, late)


async def test_a_turn_is_shorter_where_many_wait() -> None:
    """Four rounds within half of 30 seconds, requests of 3 seconds included: less than a second for each."""
    front = Front(running=10, aging=1, longest=30)
    await one_after_another(front, 3.0, 100)
    assert front.queue.enter(place(capacity=1), "hot", version("hot"))
    cold = [await front.line_up(f"cold{each}", f"c{each}", f"{each}", place(capacity=1)) for each in range(4)]
    front.now += 1.5
    late = await front.line_up("late", "hot", "hot", place(capacity=1))
    assert front.order == []
    for task in (*cold, late):
        task.cancel()


async def test_what_nobody_waits_for_any_more_opens_again() -> None:
    front = Front(running=10, aging=1)
    front.queue.enter(place(), "a", version("x"))
    front.queue.enter(place(), "b", version("y"))
    cold = await front.line_up("cold", "c", "z")
    front.now = 1.5
    await front.line_up("cold too", "c", "z")
    assert front.queue._lanes["engine-0"].closing
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cold
    assert front.queue.enter(place(), "a", version("x"))
    assert front.queue.enter(place(), "b", version("y"))
    assert front.queue.waiting == 0


async def test_any_of_the_engines_will_do() -> None:
    front = Front(running=1)
    one, two = place("engine-1"), place("engine-2")
    front.queue.enter(one, "a", version("x"))
    front.queue.enter(two, "a", version("x"))
    task = await front.line_up("b", "b", "y", one, two)
    await front.leave("a", "x", two)
    assert await task == two
    assert front.queue.waiting == 0
    await front.leave("a", "x", one)
    assert front.queue.enter(one, "a", version("x"))


async def test_a_place_given_to_somebody_who_leaves_is_given_on() -> None:
    front = Front(running=1)
    front.queue.enter(place(), "a", version("x"))
    gone = await front.line_up("gone", "b", "y")
    stays = await front.line_up("stays", "c", "z")
    front.queue.leave(place(), "a", version("x"))
    gone.cancel()  # granted, and never told
    assert await stays == place()
    with pytest.raises(asyncio.CancelledError):
        await gone
    await front.leave("c", "z")
    assert front.queue.enter(place(), "a", version("x"))


async def test_nobody_waits_longer_than_the_longest() -> None:
    queue = Queue(Patience(running=1, aging=0.01, longest=0.05), ticks=asyncio.get_running_loop().time)
    queue.enter(place(), "a", version("x"))
    with pytest.raises(Overloaded) as error:
        await queue.wait((place(),), "b", version("y"))
    assert dict(error.value.headers)[b"retry-after"] == b"1"
    assert (queue.waiting, queue.refused, queue.waited) == (0, 1, 1)


async def test_who_floods_a_full_queue_loses_its_own() -> None:
    front = Front(running=1, waiting=4)
    front.queue.enter(place(), "other", version("z"))
    flood = [await front.line_up(f"flood{number}", "flood", "x") for number in range(4)]
    with pytest.raises(Overloaded):
        await front.queue.wait((place(),), "flood", version("x"))
    mild = await front.line_up("mild", "mild", "y")
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await flood[3]
    assert front.queue.waiting == 4
    front.now = 30.0
    with pytest.raises(Overloaded) as error:
        await front.queue.wait((place(),), "flood", version("x"))
    assert dict(error.value.headers)[b"retry-after"] == b"30"  # as long as the first has waited
    for task in (mild, *flood[:3]):
        task.cancel()


async def test_routers_share_an_engine() -> None:
    front = Front(running=4)
    front.queue.share(2)
    assert front.queue.enter(place(), "a", version("x"))
    assert front.queue.enter(place(), "a", version("x"))
    assert not front.queue.enter(place(), "a", version("x"))  # half of 4
    await front.leave("a", "x")
    assert not front.queue.enter(place(), "b", version("y"))  # half of 2 slots
    task = await front.line_up("b", "b", "y")
    front.queue.share(1)
    assert await task == place()


async def test_an_engine_that_comes_back_larger_has_more_slots() -> None:
    front = Front(running=10)
    for name in ("x", "y"):
        assert front.queue.enter(place(), "a", version(name))
    assert not front.queue.enter(place(), "a", version("z"))
    assert front.queue.enter(place(capacity=3), "a", version("z"))


def test_patience_refuses_what_switches_it_off() -> None:
    for bad in ({"running": 0}, {"waiting": -1}, {"turn": -1}, {"aging": 0}, {"aging": 3.0, "longest": 2.0}):
        with pytest.raises(ValueError, match="patience"):
            Patience(**bad)


SERVICE = 1.0
AGING = 2.0
TURN = 0.5
TICK = 0.1


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    adapters=st.integers(3, 6),
    slots=st.integers(1, 3),
    running=st.integers(2, 6),
)
def test_nobody_starves_beside_tenants_that_never_stop(
    seed: int, adapters: int, slots: int, running: int
) -> None:
    """Hot tenants always have more to ask; a cold one asks now and then, of an adapter without a slot. Each
    request takes at most a second. Whatever the arrivals, a cold one waits for its aging, for one closing and
    for one round of all other adapters, and not for their backlog."""
    longest, served = asyncio.run(_simulated(random.Random(seed), adapters, slots, running))
    assert served == 12
    assert longest <= AGING + TICK + (TURN + SERVICE) * (1 + math.ceil((adapters - 1) / slots))


async def _simulated(  # noqa: PLR0912 (what happens, one thing after the other)
    draw: random.Random, adapters: int, slots: int, running: int
) -> tuple[float, int]:
    """A clock of its own: (longest wait of a cold request, how many were served)."""
    now = 0.0
    patience = Patience(running=running, waiting=10_000, aging=AGING, turn=TURN, longest=1e6)
    queue = Queue(patience, ticks=lambda: now)
    home = place(capacity=slots)
    events: list[tuple[float, int, str, str]] = []
    count, longest, served = 0, 0.0, 0
    done: list[tuple[str, float | None]] = []

    def later(seconds: float, what: str, adapter: str) -> None:
        nonlocal count
        count += 1
        heapq.heappush(events, (now + seconds, count, what, adapter))

    for number in range(adapters - 1):
        for _ in range(running * 2):
            later(draw.random(), "ask", f"hot{number}")
    for _ in range(12):
        later(draw.random() * 15, "ask", "cold")
    for tick in range(300):
        later(tick * TICK, "tick", "")
    while events:
        now, _, what, adapter = heapq.heappop(events)
        if what == "ask":
            # Behind others of its own it waits for these, too.
            first = now if adapter == "cold" and not queue._waiting["cold"] else None
            if queue.enter(home, adapter, version(adapter)):
                done.append((adapter, first))
            else:
                task = asyncio.create_task(queue.wait((home,), adapter, version(adapter)))
                task.add_done_callback(lambda _, asked=(adapter, first): done.append(asked))  # type: ignore[misc]
        elif what == "end":
            queue.leave(home, adapter, version(adapter))
            if adapter != "cold" and now < 20:
                later(0, "ask", adapter)
        elif queue.waiting:  # what the timers of a running loop do
            queue._aged(next(iter(queue._entries)))
        for _ in range(3):
            await asyncio.sleep(0)
        lane = queue._lanes.get(home.engine)
        assert lane is None or (lane.running <= running and len(lane.active) <= slots)
        for asked, since in done:
            served += asked == "cold"
            longest = max(longest, now - since if since is not None else 0)
            later(SERVICE * draw.random(), "end", asked)
        done.clear()
    assert queue.waiting == 0
    assert queue._lanes[home.engine].running == 0
    return longest, served
