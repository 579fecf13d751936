"""The suite through the router of a whole stack, over the engine that has no model."""

import asyncio

import pytest

from server.demo.build_base import SHIPPED_BASE
from server.mixup import ours
from server.mixup.dangers import DANGERS
from server.mixup.ground import Plan
from server.mixup.starting import Recipe


@pytest.mark.slow
def test_promotions_swapped_files_and_every_door_change_no_answer() -> None:
    plan = Plan(requests=120, slots=2, starving=2.0, head_start=0.05, destructive=True)
    recipe = Recipe(base=SHIPPED_BASE.resolve(), slots=2, heartbeat=1.0, fake=True)
    report = asyncio.run(ours.started(recipe, plan, say=lambda _: None))
    assert {found.danger: found.why for found in report.findings if found.outcome != "handled"} == {}
    assert list(report.verdicts()) == list(DANGERS)
    assert report.mixups == report.unclear == 0
    seen = {found.danger: found.figures for found in report.findings}
    assert seen["D2"]["moves"] >= 1
    assert seen["D2"]["killed"] >= 1
    assert {"noticed_seconds", "back_seconds"} <= seen["D3"].keys() & seen["D4"].keys()
