"""What failed, was never heard or was cut proves nothing: no verdict of the suite is handled by it."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from server.mixup import calls, closed, doors, storm, swaps, turns, weights
from server.mixup.errors import ReferenceRefused
from server.mixup.ground import Voice
from server.mixup.suite import Check
from server.mixup.wire import Ask, Reply
from server.testing.fake_lora_server import FakeLoraServer
from tests.unit.server.mixing import PLAN, served


@pytest.mark.parametrize(
    ("status", "check", "outcome"),
    [
        (500, doors.without_model, "not_tested"),
        (500, doors.sagemaker, "not_tested"),
        (500, calls.arguments, "not_tested"),
        (422, calls.arguments, "not_tested"),
        (404, calls.arguments, "not_applicable"),
        (500, weights.broken_values, "not_tested"),
        (500, weights.other_structure, "not_tested"),
        (500, turns.starvation, "present"),
        (404, swaps.evicted_and_deleted, "not_tested"),
    ],
)
async def test_a_server_that_only_fails_has_refused_nothing(
    tmp_path: Path, status: int, check: Check, outcome: str
) -> None:
    async with served(tmp_path, FakeLoraServer()) as it:
        await it.ground.prepare()
        it.server.sick = status
        try:
            seen = (await check(it.ground)).outcome
        except ReferenceRefused:  # the suite makes not_tested of it
            seen = "not_tested"
    assert seen == outcome


@pytest.mark.parametrize(("status", "outcome"), [(500, "not_tested"), (0, "present")])
@pytest.mark.parametrize("check", [swaps.taken_again, swaps.in_place, swaps.cached_prefix])
async def test_a_load_that_fails_is_no_refusal(
    tmp_path: Path, check: Check, status: int, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes on: what was never answered at all may have ended one of its processes."""
    async with served(tmp_path, FakeLoraServer(), replace(PLAN, update="reuse")) as it:
        await it.ground.prepare()
        loaded, names = it.ground.loader.load, set(it.server.paths)

        async def failing(name: str, folder: Path, *, inplace: bool = False) -> tuple[int, str]:
            if inplace or name in names:
                return status, "the second load of a name fails"
            names.add(name)
            return await loaded(name, folder)

        monkeypatch.setattr(it.ground.loader, "load", failing)
        assert (await check(it.ground)).outcome == outcome


async def test_long_prompts_that_fail_tell_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path, FakeLoraServer()) as it:
        await it.ground.prepare()
        asked, count = it.ground.ask, iter(range(100))

        async def sometimes(name: str | None, prompt: str, **options: object) -> Reply:
            return Reply(status=500) if next(count) % 4 == 0 else await asked(name, prompt, **options)

        monkeypatch.setattr(it.ground, "ask", sometimes)
        assert (await turns.shared_prefixes(it.ground)).outcome == "not_tested"


@pytest.mark.parametrize(("status", "outcome"), [(500, "not_tested"), (404, "handled"), (0, "not_tested")])
async def test_doors_of_a_tenon_are_closed_by_refusals_alone(
    tmp_path: Path, status: int, outcome: str
) -> None:
    async with served(tmp_path, FakeLoraServer()) as it:
        await it.ground.prepare()
        it.ground.voices = {"one": Voice("assistant", it.server.key)}
        it.server.sick, it.server.dead = status, status == 0
        assert (await closed.base(it.ground, 6, [])).outcome == outcome
        if status != 500:  # reached, and then failed: not closed
            assert (await closed.loading(it.ground)).outcome == outcome


async def test_an_unreachable_server_has_no_closed_doors(tmp_path: Path) -> None:
    async with served(tmp_path, FakeLoraServer()) as it:
        it.server.dead = True
        assert (await doors.without_key(it.ground)).outcome == "not_tested"


async def test_a_stream_that_does_not_say_why_it_ended_is_no_answer(tmp_path: Path) -> None:
    async with served(tmp_path, FakeLoraServer(cuts_streams=True)) as it:
        await it.ground.prepare()
        name = it.ground.name_of(it.ground.weights()[0])
        cut = await it.ground.wire.ask(Ask(model=name, prompt=it.ground.prompts[0], stream=True))
        assert (cut.status, cut.answered) == (200, False)
        seen = await storm.plain(it.ground, 100)
    assert seen.failed > 10
    assert seen.outcome == "not_tested"


async def test_what_a_server_that_ended_never_heard_counts_as_asked(tmp_path: Path) -> None:
    async with served(tmp_path, FakeLoraServer()) as it:
        await it.ground.prepare()
        it.server.lives = 400
        seen = await storm.plain(it.ground, 500)
    assert (seen.requests, seen.outcome) == (500, "not_tested")


async def test_slots_that_nobody_kept_busy_show_no_fair_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path, FakeLoraServer()) as it:
        await it.ground.prepare()
        asked = it.ground.ask

        async def hot_fails(name: str | None, prompt: str, **options: object) -> Reply:
            await asyncio.sleep(0.01)
            return Reply(status=500) if options.get("stream") else await asked(name, prompt, **options)

        monkeypatch.setattr(it.ground, "ask", hot_fails)
        assert (await turns.starvation(it.ground)).outcome == "not_tested"


async def test_churn_without_a_load_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path, FakeLoraServer()) as it:
        await it.ground.prepare()
        await it.ground.long_ones(PLAN.slots)

        async def refused(name: str, folder: Path, *, inplace: bool = False) -> tuple[int, str]:
            return 400, "full"

        monkeypatch.setattr(it.ground.loader, "load", refused)
        assert (await storm.under_churn(it.ground, 40)).outcome == "not_tested"
