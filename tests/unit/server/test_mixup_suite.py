"""The suite against a server that mixes up in one way at a time: that way is found."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from server.mixup import lora, suite, targets
from server.mixup.dangers import DANGERS
from server.mixup.errors import NothingToTest, ServerSilent
from server.mixup.finding import Finding
from server.mixup.ground import Ground, Plan
from server.mixup.loading import Loader
from server.testing.fake_lora_server import FakeLoraServer, Mixing
from tests.unit.server.mixing import PLAN, Served, served

FAULTS = [fault.name for fault in fields(Mixing)]


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
