"""place and lease: the rule, step by step, and no hold that lasts for ever."""

import asyncio
import timeit
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.digests import Digest
from router.circuit import FAILURES, Circuits
from router.errors import EngineFailed, EngineRejectedRequest, EngineTimeout, NothingSent
from router.headers import Headers
from router.placement import BOUND, Leases, Placement, affinity_of, pick
from router.places import Place
from router.surfaces.surface import Question

VERSION = Digest.of(b"a version")
FOUND = Digest.of(b"an attestation")


def place(name: str, capacity: int = 8, boot: str = "boot-1") -> Place:
    return Place(name, boot, f"http://{name}", FOUND, capacity)


def fleet(*capacities: int) -> list[Place]:
    return [place(f"engine-{number}", capacity) for number, capacity in enumerate(capacities)]


class Watch:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def placement(watch: Watch) -> Placement:
    return Placement(Leases(seconds=60, ticks=watch), Circuits(watch))


def winner(places: list[Place], loads: dict[str, int], affinity: int) -> str:
    found = pick(places, lambda engine: loads.get(engine, 0), affinity)
    assert found is not None
    return found.engine


def test_idle_engines_get_conversations_in_proportion_to_their_capacity() -> None:
    places = fleet(4, 8, 16)
    won = Counter(winner(places, {}, affinity) for affinity in range(7000))
    shares = [won[each.engine] / 7000 for each in places]
    # Binomial: a deviation of 0.02 is more than three standard deviations of the largest share.
    assert shares == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=0.02)


def test_a_conversation_keeps_its_engine_when_others_come_and_go() -> None:
    places = fleet(8, 8, 8, 8)
    for affinity in range(300):
        home = winner(places, {}, affinity)
        assert winner(places[::-1], {}, affinity) == home
        for gone in places:
            if gone.engine != home:
                assert winner([each for each in places if each is not gone], {}, affinity) == home


def test_a_conversation_leaves_an_engine_only_when_it_is_busier_than_the_bound() -> None:
    places = fleet(8, 8)
    affinity = next(n for n in range(99) if winner(places, {}, n) == "engine-0")
    # 12 others on both: (12 + 8 + 1) requests, of which engine-0 may have ceil(1.25 × 21 / 2) = 14.
    assert winner(places, {"engine-0": 13, "engine-1": 7}, affinity) == "engine-0"
    assert winner(places, {"engine-0": 14, "engine-1": 6}, affinity) == "engine-1"


@given(
    capacities=st.lists(st.integers(1, 64), min_size=1, max_size=8),
    affinity=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_somebody_is_always_calm_and_nobody_gets_more_than_the_bound(
    capacities: list[int], affinity: int, data: st.DataObject
) -> None:
    places = fleet(*capacities)
    loads = {each.engine: data.draw(st.integers(0, 500)) for each in places}
    chosen = next(each for each in places if each.engine == winner(places, loads, affinity))
    share = (sum(loads.values()) + 1) * chosen.capacity / sum(capacities)
    assert loads[chosen.engine] + 1 <= BOUND * share + 1 or len(places) == 1
    assert winner(places, loads, affinity) == chosen.engine


async def test_what_goes_on_at_an_engine_ends_with_its_lease(placement: Placement, watch: Watch) -> None:
    here = place("engine-0")
    held = asyncio.Event()

    async def hang() -> None:
        with placement.visit(here, VERSION):
            held.set()
            await asyncio.Event().wait()

    working = asyncio.create_task(hang())
    await held.wait()
    watch.now += 60
    assert placement.leases.sweep() == 1
    with pytest.raises(EngineTimeout):
        await working
    assert placement.leases.engines() == {}


async def test_a_cancelled_request_is_nobodys_timeout(placement: Placement) -> None:
    held = asyncio.Event()

    async def hang() -> None:
        with placement.visit(place("engine-0"), VERSION):
            held.set()
            await asyncio.Event().wait()

    working = asyncio.create_task(hang())
    await held.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert placement.leases.engines() == {}


async def test_expired_leases_are_looked_for_without_requests(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.placement._LOOK_SECONDS", 0.001)
    leases, over = Leases(seconds=60, ticks=watch), asyncio.Event()
    leases.take(place("engine-0"), VERSION, over.set)
    await leases.start()
    watch.now += 60
    async with asyncio.timeout(5):
        await over.wait()
    await leases.stop()
    assert leases.expired == 1


def test_nobody_is_asked_twice_and_then_nobody_is_left(placement: Placement) -> None:
    places = fleet(8, 8, 8)
    tried: list[str] = []
    while (found := placement.next(places, 7, tried)) is not None:
        tried.append(found.engine)
    assert sorted(tried) == ["engine-0", "engine-1", "engine-2"]
    assert placement.next(places[:1], 7, ["engine-0"]) is None
    assert placement.next([], 7) is None


async def test_an_open_circuit_is_passed_over_though_affinity_prefers_it(
    placement: Placement, watch: Watch
) -> None:
    places = fleet(8, 8)
    affinity = next(n for n in range(99) if winner(places, {}, n) == "engine-0")
    for _ in range(FAILURES):
        with pytest.raises(NothingSent), placement.visit(places[0], VERSION):
            raise NothingSent
    found = placement.next(places, affinity)
    assert found is not None
    assert found.engine == "engine-1"
    assert placement.next(places[:1], affinity) is None
    watch.now += 1
    assert placement.next(places, affinity) is places[0]  # half open: the probe
    with placement.visit(places[0], VERSION):
        assert placement.next(places, affinity) is places[1]
    assert placement.next(places, affinity) is places[0]


def _fail_while(held: bool) -> None:
    assert held
    raise EngineFailed


async def test_a_visit_holds_the_slot_and_gives_it_back_whatever_happens(placement: Placement) -> None:
    here = place("engine-0")
    with placement.visit(here, VERSION):
        assert placement.leases.on_slot("engine-0", VERSION) == 1
        inner = placement.visit(here, VERSION)
        with pytest.raises(EngineFailed), inner:
            _fail_while(placement.leases.engines() == {"engine-0": 2})
    assert placement.leases.engines() == {}
    assert placement.leases.on_slot("engine-0", VERSION) == 0


async def test_a_request_that_the_engine_refused_counts_as_its_answer(placement: Placement) -> None:
    here = place("engine-0")
    for error in (EngineFailed, EngineFailed, EngineRejectedRequest, EngineFailed, EngineFailed):
        with pytest.raises(error), placement.visit(here, VERSION):
            raise error
    assert placement.next([here], 0) is here


def test_a_lease_that_outlives_its_time_is_reported_and_released(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    leases, told = Leases(seconds=60, ticks=watch), []
    first = leases.take(place("engine-0"), VERSION, lambda: told.append("first"))
    watch.now += 30
    second = leases.take(place("engine-0"), VERSION)
    watch.now += 29
    assert leases.sweep() == 0
    watch.now += 1
    assert leases.sweep() == 1
    assert (told, leases.expired, leases.on_engine("engine-0")) == (["first"], 1, 1)
    assert "engine-0 outlived 60 s" in caplog.text
    leases.give(first)  # its holder comes back late: nothing of the second's is taken away
    assert leases.on_slot("engine-0", VERSION) == 1
    leases.give(second)
    leases.give(second)
    assert leases.engines() == {}
    watch.now += 999
    assert leases.sweep() == 0


def asking(*contents: str, conversation: str | None = None) -> int:
    sent = [] if conversation is None else [(b"x-conversation-id", conversation.encode())]
    messages = [{"role": "user", "content": content} for content in contents]
    return affinity_of(Headers(sent), Question(model="m", messages=messages))


def test_turns_of_a_conversation_have_one_affinity() -> None:
    assert asking("system", "pay", "done", "and now?") == asking("system", "pay")
    assert asking("system", "pay") != asking("system", "sell")
    assert asking("a", conversation="c7") == asking("b", conversation="c7") != asking("a", conversation="c8")
    assert asking("\ud800") == asking("\ud800")  # half a surrogate pair is no reason to fail


def beginning(content: Any = None, prompts: Sequence[str | list[int]] = ()) -> int:
    messages = [] if content is None else [{"role": "user", "content": content}]
    return affinity_of(Headers([]), Question(model="m", messages=messages, prompts=prompts))


def test_prompts_and_media_have_an_affinity_too() -> None:
    text = {"type": "text", "text": "what is this?"}
    header = "data:image/jpeg;base64," + "A" * 5000

    def picture(data: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": header + data}}

    sound = {"type": "input_audio", "input_audio": {"data": "UklGR", "format": "wav"}}
    found = [
        beginning(prompts=["pay Norvik"]),
        beginning(prompts=["sell Norvik"]),
        beginning(prompts=[[1, 2, 3]]),
        beginning(prompts=[[1, 2, 4]]),
        beginning([text]),
        beginning([picture("Q")]),
        beginning([picture("R")]),
        beginning([picture("R"), text]),
        beginning([sound]),
        beginning("what is this?"),
    ]
    assert len(set(found)) == len(found)
    assert 0 not in found
    long = "a completion that is continued " * 100
    assert beginning(prompts=[long]) == beginning(prompts=[long + "and on"])


def test_placing_costs_microseconds(placement: Placement) -> None:
    """Eight engines under 30 µs even on a busy machine (measured alone: see docs/concepts/placement.md)."""
    places = fleet(*[8] * 8)
    best = min(timeit.repeat(lambda: placement.next(places, 12345), number=200, repeat=5)) / 200
    assert best < 30e-6
