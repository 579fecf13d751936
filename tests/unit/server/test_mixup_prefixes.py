"""S1 is found by the clock: what a server says of its cache can only speak against it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

from server.mixup import turns
from server.mixup.controls import CONTROLS
from server.mixup.finding import Finding
from server.mixup.ground import Ground, Plan
from server.mixup.loading import Loader
from server.mixup.suite import run
from server.mixup.trace import Trace
from server.mixup.wire import Reply, Wire
from server.testing.fake_lora_server import FakeLoraServer, Mixing
from tests.unit.server.mixing import PLAN, served

Role: TypeAlias = Literal["victim", "again", "new"]
Clock: TypeAlias = Callable[[Role], float]
VICTIM, ATTACKER = "tenant-a", "tenant-b"
NEW, CACHED = 0.4, 0.02


async def told(
    clock: Clock, cached: int | None = 0, status: Callable[[Role], int] = lambda _: 200
) -> Finding:
    """What the check says of a server whose answers take so long, and which says so of its cache."""
    wire = Wire("http://127.0.0.1:1")
    ground = Ground(wire=wire, loader=Loader(wire, "none"), plan=Plan(tenant_salts="each"), folder=Path())
    ground.twins = (VICTIM, ATTACKER)
    sent: dict[str, set[str]] = {VICTIM: set(), ATTACKER: set()}

    async def ask(name: str, prompt: str, **_: object) -> Reply:
        role: Role = "victim" if name == VICTIM else "again" if prompt in sent[VICTIM] else "new"
        assert prompt not in sent[name], "asked before: it is in the tenant's own cache"
        sent[name].add(prompt)
        traces = (Trace("a", ()),)
        return Reply(
            status=status(role), traces=traces, finished=True, cached_tokens=cached, seconds=clock(role)
        )

    ground.ask = ask  # type: ignore[assignment, method-assign]
    return await turns.shared_prefixes(ground)


def shares(role: Role) -> float:
    return CACHED if role == "again" else NEW


@pytest.mark.parametrize("cached", [0, None])
async def test_a_server_that_denies_its_cache_is_found_by_the_clock(cached: int | None) -> None:
    found = await told(shares, cached)
    assert found.outcome == "present", found.why
    assert "5%" in found.why
    assert found.figures["time_ratio"] == pytest.approx(0.05)
    assert found.figures["cached_tokens"] == 0


async def test_what_a_server_says_against_itself_is_believed() -> None:
    found = await told(lambda _: NEW, 128)
    assert (found.outcome, found.figures["cached_tokens"]) == ("present", 128)


@pytest.mark.parametrize("cached", [0, None])
async def test_equal_times_are_handled_and_asked_for_once(cached: int | None) -> None:
    found = await told(lambda _: NEW, cached)
    assert (found.outcome, found.requests) == ("handled", 15)


async def test_a_cache_that_only_some_requests_meet_is_found() -> None:
    """Two engines behind one gateway: the attacker does not always come to the victim's."""
    count = iter(range(1000))
    found = await told(lambda role: CACHED if role == "again" and next(count) % 5 == 2 else NEW)
    assert found.outcome == "present", found.why


async def test_new_prompts_that_are_fast_now_and_then_hide_nothing() -> None:
    """Another engine may be as fast without a cache as this one with it."""
    count = iter(range(1000))
    found = await told(lambda role: CACHED if role == "again" or next(count) % 9 == 0 else NEW)
    assert found.outcome == "present", found.why


@pytest.mark.parametrize("slower", ["victim", "again", "new"])
async def test_one_slow_answer_of_a_busy_machine_is_no_cache(slower: Role) -> None:
    for at in range(5):
        slow = [1] * at + [20] + [1] * 1000
        found = await told(lambda role, slow=slow: NEW * (slow.pop(0) if role == slower else 1))  # type: ignore[misc]
        assert found.outcome == "handled", found.why


async def test_who_finds_things_warm_has_no_cache() -> None:
    """The attacker's second question of each try is always the faster one, the same or not."""
    asked = iter(range(1000))
    found = await told(lambda role: NEW if role == "victim" else NEW * (1 if next(asked) % 2 else 10))
    assert found.outcome == "handled", found.why


async def test_a_tenant_who_is_served_faster_than_the_other_has_no_cache() -> None:
    assert (await told(lambda role: NEW if role == "victim" else CACHED)).outcome == "handled"


@pytest.mark.parametrize("sharing", [False, True])
async def test_load_neither_makes_a_cache_nor_hides_one(sharing: bool) -> None:
    """Four answers of ten take up to ten times as long, and spells of load come and go."""
    for seed in range(60):
        drawn = random.Random(seed)
        spell = {"load": 1.0}

        def clock(role: Role) -> float:
            if drawn.random() < 0.1:  # noqa: B023
                spell["load"] = drawn.choice((1.0, 1.0, 2.0, 4.0))  # noqa: B023
            slowed = drawn.uniform(1, 10) if drawn.random() < 0.4 else drawn.uniform(1, 1.1)  # noqa: B023
            return (shares(role) if sharing else NEW) * slowed * spell["load"]  # noqa: B023

        found = await told(clock)
        assert found.outcome == ("present" if sharing else "handled"), (seed, found)


async def test_times_in_between_are_unclear_and_pass_nothing() -> None:
    found = await told(lambda role: NEW * (0.6 if role == "again" else 1))
    assert (found.outcome, found.unclear, found.requests) == ("not_tested", 1, 90)


@pytest.mark.parametrize("role", ["victim", "again", "new"])
async def test_long_prompts_that_fail_for_one_of_them_tell_no_time(role: Role) -> None:
    count = iter(range(1000))
    found = await told(lambda _: NEW, status=lambda asked: 500 if asked == role and next(count) == 1 else 200)
    assert (found.outcome, found.failed) == ("not_tested", 1)
    assert (await told(shares, status=lambda asked: 500 if asked == role else 200)).outcome == "not_tested"


@pytest.mark.parametrize(("fault", "outcome"), [("s1_hides", "present"), ("", "handled")])
async def test_the_second_run_with_one_seed_finds_what_the_first_has(
    tmp_path: Path, fault: str, outcome: str
) -> None:
    """Prompts of the first one would be in the attacker's own cache."""
    server = FakeLoraServer(Mixing(**{fault: True} if fault else {}))
    async with served(tmp_path, server) as it:
        await it.ground.prepare()
        for _ in range(2):
            ground = Ground(
                wire=it.ground.wire, loader=it.ground.loader, plan=PLAN, folder=tmp_path, live=it.ground.live
            )
            ground.references = it.ground.references
            found = await turns.shared_prefixes(ground)
            assert found.outcome == outcome, found
            assert found.figures["cached_tokens"] == 0


@pytest.mark.parametrize("name", ["salt-colliding", "cache-denied"])
async def test_controls_of_shared_prefixes_are_caught_on_the_fake_too(tmp_path: Path, name: str) -> None:
    """Nothing is wrong with the server itself here: what stands in between is broken."""
    control = CONTROLS[name]
    async with served(tmp_path, FakeLoraServer(), control.plan(seed=1, requests=40, slots=2)) as it:
        seen = {each.danger: each for each in await run(it.ground, say=lambda _: None)}
    assert seen["Q1"].outcome == "handled"
    assert seen["S1"].outcome == "present", seen["S1"].why
    assert (seen["S1"].figures["cached_tokens"] > 0) is (name == "salt-colliding")
