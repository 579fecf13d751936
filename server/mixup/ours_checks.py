"""The dangers as they would look from outside of Tenon, and what is done to its machines."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from server.mixup import closed, ours_intake, storm, suite
from server.mixup.finding import Finding, Tally
from server.mixup.ground import Ground
from server.mixup.moving import Moving, short
from server.mixup.nodes import Node, until
from server.mixup.suite import Check, Storm

if TYPE_CHECKING:
    from server.mixup.ours import Stack

_NOTICED_WITHIN, _BACK_WITHIN = 90.0, 240.0
"""Seconds: some of the agent's heartbeats; a start of vLLM on a busy machine."""
_BETWEEN: Final = 1.0
"""Seconds between two rounds of everybody's requests, which the restart has to itself."""


def storms(ours: "Stack") -> Mapping[str, tuple[Storm, float]]:
    kept = Checks(ours)
    return {"Q1": (plain, 0.6), "D1": (kept.base, 0.05), "D2": (kept.churn, 0.35)}


def checks(ours: "Stack") -> Mapping[str, Check]:
    kept, moving = Checks(ours), Moving(ours)
    mine: dict[str, Check] = {
        "D3": kept.swapped_files,
        "D4": kept.deleted_files,
        "D5": moving.moved_under_load,
        "D6": closed.loading,
        "D7": moving.moved_prefix,
        "D12": partial(ours_intake.broken_values, into=ours, shapes=ours.shapes),
        "D16": partial(ours_intake.other_structure, into=ours, shapes=ours.shapes),
    }
    return {danger: mine.get(danger, check) for danger, check in suite.CHECKS.items()}


async def plain(ground: Ground, count: int) -> Finding:
    """Q1: nothing is done to anything, so nothing may fail either."""
    found = await storm.plain(ground, count)
    if found.outcome != "present" and (lost := found.failed + found.refused):
        return replace(found, outcome="present", why=f"{lost} requests failed or were refused")
    return found


class Checks:
    """Each is a Check of :mod:`server.mixup.suite` or a storm."""

    def __init__(self, ours: "Stack") -> None:
        self._ours = ours
        self._moving = Moving(ours)

    async def base(self, ground: Ground, count: int) -> Finding:
        return await closed.base(ground, count, [each.version for each in self._ours.known.values()])

    async def churn(self, ground: Ground, count: int) -> Finding:
        """D2: one engine is killed in the middle of it, and has to come back."""
        nodes = self._ours.nodes

        async def strike() -> int:
            return await asyncio.to_thread(nodes[-1].kill)

        found = await self._moving.churn(ground, count, strike=strike if len(nodes) > 1 else None)
        if found.outcome == "handled" and await self._whole() is None:
            return replace(found, outcome="present", why="the killed engine did not come back")
        return found

    async def swapped_files(self, ground: Ground) -> Finding:
        """D3: on a node's disk, below everything."""
        return await self._harmed(ground, ground.tally("D3"), self._ours.nodes[0], Node.swap, "swapped")

    async def deleted_files(self, ground: Ground) -> Finding:
        """D4"""
        return await self._harmed(ground, ground.tally("D4"), self._ours.nodes[-1], Node.empty, "deleted")

    async def _harmed(
        self, ground: Ground, tally: Tally, node: Node, harm: Callable[[Node], bool], what: str
    ) -> Finding:
        """A node's whole cache while everybody asks, until its agent has noticed and all is as it was.

        Where there is another engine, nobody may notice; where there is none, refusing to answer is right."""
        if await self._whole() is None:
            return tally.finding("not_tested", "an engine did not come back from what was done before")
        boot, _ = await asyncio.to_thread(node.state)
        if not await asyncio.to_thread(harm, node):
            return tally.finding("not_tested", "no cache on this machine")

        async def asking() -> None:
            await self._everybody(ground, tally)
            await asyncio.sleep(_BETWEEN)

        noticed = await until(lambda: node.state()[0] != boot, limit=_NOTICED_WITHIN, meanwhile=asking)
        back = None if noticed is None else await self._whole(asking)
        if noticed is None or back is None:
            left = "went on with them" if noticed is None else "did not come back"
            return tally.finding("present", f"files were {what}, and the engine {left}")
        tally.figures.update(noticed_seconds=round(noticed, 1), back_seconds=round(back, 1))
        lost = tally.failed + tally.refused
        await asking()
        after = tally.failed + tally.refused - lost
        if after or (lost and len(self._ours.nodes) > 1):
            return tally.finding(
                "present", f"files were {what}, and {lost} requests failed, {after} at the end"
            )
        told = f"{lost} requests were refused meanwhile" if lost else "no request failed"
        return tally.by_answers(
            handled=f"{what} files ended the engine after {noticed:.0f} s, {told}, and it was back "
            f"{back:.0f} s later",
            excused=lost,
        )

    async def _whole(self, meanwhile: Callable[[], Awaitable[None]] | None = None) -> float | None:
        """Seconds until every engine serves all that it should."""
        nodes = self._ours.nodes
        return await until(
            lambda: all(node.state()[1] for node in nodes), limit=_BACK_WITHIN, meanwhile=meanwhile
        )

    async def _everybody(self, ground: Ground, tally: Tally) -> None:
        async def one(tenant: str) -> None:
            for prompt in ground.prompts:
                await self._moving.ask(ground, tally, tenant, short(prompt))

        await asyncio.gather(*map(one, ground.voices))
