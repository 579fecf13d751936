"""The suite against a server that mixes up in one way at a time: that way is found."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from server.mixup import calls, closed, doors, lora, storm, suite, swaps, targets, turns, weights
from server.mixup.dangers import DANGERS
from server.mixup.errors import NothingToTest, ReferenceRefused, ServerSilent
from server.mixup.finding import Finding
from server.mixup.ground import Ground, Plan, Voice
from server.mixup.loading import Dialect, Loader
from server.mixup.suite import Check
from server.mixup.wire import Ask, Reply, Wire
from server.testing.fake_lora_server import WIDTH, FakeLoraServer, Mixing
from tests.support.adapters import write_safetensors

PLAN = Plan(
    seed=3,
    requests=150,
    slots=2,
    pool=5,
    prompts=4,
    long_tokens=40,
    rounds=3,
    starving=0.5,
    tenant_salts="each",
    head_start=0.02,
    destructive=True,
)
FAULTS = [fault.name for fault in fields(Mixing)]


@dataclass
class Served:
    server: FakeLoraServer
    ground: Ground


@contextlib.asynccontextmanager
async def served(
    folder: Path,
    server: FakeLoraServer,
    plan: Plan = PLAN,
    *,
    loading: Dialect = "vllm",
    given: tuple[str, ...] = (),
    made: bool = True,
) -> AsyncIterator[Served]:
    (folder / "base").mkdir()
    shapes = {"q_proj": WIDTH, "v_proj": WIDTH, "down_proj": 2 * WIDTH}
    write_safetensors(
        folder / "base" / "model.safetensors",
        {
            f"model.layers.0.x.{name}.weight": np.zeros((WIDTH, into), np.float32)
            for name, into in shapes.items()
        },
    )
    runner = web.AppRunner(server.app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]

    async def restart() -> None:
        server.revive()

    try:
        async with Wire(f"http://127.0.0.1:{port}", key=server.key, timeout=10) as wire:
            ground = Ground(
                wire=wire,
                loader=Loader(wire, loading),
                plan=plan,
                folder=folder,
                shapes=lora.Shapes.of(folder / "base") if made else None,
                base="base",
                given=given,
                restart=restart,
            )
            yield Served(server, ground)
    finally:
        await runner.cleanup()


async def found(folder: Path, server: FakeLoraServer, plan: Plan = PLAN) -> dict[str, Finding]:
    async with served(folder, server, plan) as it:
        return {each.danger: each for each in await suite.run(it.ground, say=lambda _: None)}


async def test_a_server_that_does_everything_right_passes(tmp_path: Path) -> None:
    seen = await found(tmp_path, FakeLoraServer())
    assert {danger: each.why for danger, each in seen.items() if each.outcome != "handled"} == {}
    assert list(seen) == list(DANGERS)
    assert sum(each.requests for each in seen.values()) >= PLAN.requests
    assert sum(each.mixups + each.unclear + each.failed for each in seen.values()) == 0


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_way_of_mixing_up_is_found(tmp_path: Path, fault: str) -> None:
    danger = fault.partition("_")[0].upper()
    plan = replace(PLAN, only=frozenset({danger, "Q1"}))
    seen = await found(tmp_path, FakeLoraServer(Mixing(**{fault: True})), plan)
    assert seen[danger].outcome == "present", seen[danger].why
    if danger != "Q1":
        assert seen["Q1"].outcome == "handled", seen["Q1"].why


def sglang(it: Served, folder: Path) -> targets.Where:
    return targets.Where(
        url=it.ground.wire.url,
        key=it.server.key,
        loading="sglang",
        base=folder / "base",
        base_model=None,
        folder=folder,
        adapters=(),
    )


@pytest.mark.parametrize(
    ("fault", "present"), [("", ()), ("d10_nameless", ("D10",)), ("d2_switches_on_load", ("D2", "D5"))]
)
async def test_sglang_is_asked_in_its_own_words(tmp_path: Path, fault: str, present: tuple[str, ...]) -> None:
    """SGLang itself takes a request without a model for the base's."""
    server = FakeLoraServer(Mixing(**dict.fromkeys([fault] if fault else [], True)), dialect="sglang")
    async with served(tmp_path, server, loading="sglang") as it:
        report = await targets.of_url(sglang(it, tmp_path), PLAN, say=lambda _: None)
    others = {danger: verdict for danger, verdict in report.verdicts().items() if verdict != "handled"}
    assert others == {"D6": "not_applicable", **dict.fromkeys(present, "present")}, report.rows()
    assert report.passed is not bool(present)


async def test_sglang_without_its_bases_name_cannot_be_asked(tmp_path: Path) -> None:
    async with served(tmp_path, FakeLoraServer(dialect="sglang"), loading="sglang") as it:
        await it.ground.loader.load("only", lora.write(tmp_path / "only", it.ground.shaped(), seed=1))
        where = replace(sglang(it, tmp_path), adapters=("base", "only"))
        with pytest.raises(NothingToTest, match="--base-model"):
            await targets.of_url(where, PLAN, say=lambda _: None)


async def test_what_was_not_asked_for_is_not_claimed(tmp_path: Path) -> None:
    seen = await found(tmp_path, FakeLoraServer(), replace(PLAN, only=frozenset({"D10"})))
    assert {danger for danger, each in seen.items() if each.outcome != "not_tested"} == {"D10"}


async def test_what_can_end_a_server_is_only_asked_of_those_that_may_end(tmp_path: Path) -> None:
    seen = await found(tmp_path, FakeLoraServer(), replace(PLAN, destructive=False, requests=20))
    assert {danger for danger, each in seen.items() if each.outcome == "not_tested"} == {
        danger for danger, each in DANGERS.items() if each.destructive
    }


async def test_a_dead_server_is_never_called_handled(tmp_path: Path) -> None:
    server = FakeLoraServer(Mixing(d11_dies_of_prompts=True))
    async with served(tmp_path, server, replace(PLAN, requests=20)) as it:
        it.ground.restart = None
        seen = {each.danger: each for each in await suite.run(it.ground, say=lambda _: None)}
    assert seen["D11"].outcome == "present"
    assert seen["D4"].outcome == seen["D5"].outcome == "not_tested"


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


async def test_without_a_way_to_load_only_what_is_there_is_asked(tmp_path: Path) -> None:
    server = FakeLoraServer()
    async with served(tmp_path, server, replace(PLAN, requests=60)) as it:
        for at in range(3):
            folder = lora.write(tmp_path / f"own-{at}", it.ground.shaped(), seed=at)
            await it.ground.loader.load(f"own-{at}", folder)
        again = Ground(
            wire=it.ground.wire,
            loader=Loader(it.ground.wire, "none"),
            plan=replace(PLAN, requests=60),
            folder=tmp_path,
            base="base",
            given=("own-0", "own-1", "own-2"),
        )
        seen = {each.danger: each for each in await suite.run(again, say=lambda _: None)}
    assert seen["Q1"].outcome == seen["D1"].outcome == "handled"
    assert seen["D2"].outcome == seen["D7"].outcome == "not_tested"


async def test_nothing_to_test_and_nobody_there_are_said(tmp_path: Path) -> None:
    async with served(tmp_path, FakeLoraServer(), loading="none", made=False) as it:
        with pytest.raises(NothingToTest):
            await suite.run(it.ground, say=lambda _: None)
        it.server.dead = True
        with pytest.raises(ServerSilent):
            await suite.run(it.ground, say=lambda _: None)


async def test_the_same_seed_asks_the_same(tmp_path: Path) -> None:
    from server.mixup.storm import questions

    asked = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        async with served(tmp_path / name, FakeLoraServer()) as it:
            await it.ground.prepare()
            asked.append(questions(it.ground, 40, base_share=0.3, drawn=it.ground.drawn))
    assert asked[0] == asked[1]
