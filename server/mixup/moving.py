"""What must not be noticed while versions are promoted and rolled back under the requests (D2, D5, D7)."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from registry.catalog.errors import PromotionNotReady
from registry.errors import TenonError
from server.mixup import storm
from server.mixup.errors import ReferenceRefused
from server.mixup.finding import Finding, Tally
from server.mixup.ground import Ground
from server.mixup.judging import Judgement
from server.mixup.storm import Question
from server.mixup.versions import Known, Moves, others, own, said
from server.mixup.wire import Reply

_SHOWN_WITHIN: Final = 60.0
"""Seconds from a promotion to the first answer of the version."""
_LONG_EACH: Final = 8
"""Of so many answers one is long enough for several moves to happen under it."""
_BEGUN: Final = "failed: 500 engine_interrupted begun"
"""A stream that had brought words when its engine died: another engine's would be another answer's."""


class Moving:
    """Each is a Check of :mod:`server.mixup.suite`, or a storm."""

    def __init__(self, moves: Moves) -> None:
        self._moves = moves

    def tenants(self, ground: Ground) -> list[str]:
        """Who has more than one version."""
        return [tenant for tenant in ground.voices if len(own(self._moves.known, tenant)) > 1]

    async def churn(
        self, ground: Ground, count: int, *, strike: Callable[[], Awaitable[int]] | None = None
    ) -> Finding:
        """D2: versions are promoted, rolled back, pushed and revoked while all are answered.

        ``strike``: done to an engine in the middle of it; how many processes it has killed."""
        tally = ground.tally("D2")
        drawn = random.Random(f"ours/{ground.plan.seed}")  # noqa: S311 (it must repeat)
        tenants = self.tenants(ground)
        asked = [
            (drawn.choice(tenants), question if at % _LONG_EACH else _long(ground))
            for at, question in enumerate(storm.questions(ground, count, base_share=0, drawn=drawn))
        ]
        over = asyncio.Event()
        churner = asyncio.create_task(self._move(ground, tally, tenants, over))
        waiting = iter(enumerate(asked))

        async def ask_on() -> None:
            for at, (tenant, question) in waiting:
                if at == count // 3 and strike is not None:
                    tally.figures["killed"] = await strike()
                await self.ask(ground, tally, tenant, question)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(ground.plan.together):
                    group.create_task(ask_on())
        finally:
            over.set()
            await churner
        if not tally.figures.get("moves"):
            why = ", ".join(name for name in tally.figures if not name.startswith("failed")) or "no time"
            return tally.finding("not_tested", f"no alias moved: {why}")
        cut = int(tally.figures.get(_BEGUN, 0)) if strike is not None else 0
        if lost := tally.failed + tally.refused - int(tally.figures.get("limited", 0)) - cut:
            return tally.finding("present", f"{lost} requests failed under churn")
        if cut > ground.plan.together:
            return tally.finding("present", f"{cut} streams ended with an error, more than were open")
        told = f"; {cut} streams that had brought words ended with an error when it died" if cut else ""
        return tally.by_answers(
            handled=f"every answer was the version's that it names, and its tenant's{told}", excused=cut
        )

    async def moved_under_load(self, ground: Ground) -> Finding:
        """D5: the public name stands for other weights from one moment to the next."""
        tally = ground.tally("D5")
        for tenant in self.tenants(ground)[:2]:
            running = [
                asyncio.create_task(self.ask(ground, tally, tenant, question))
                for question in storm.questions(ground, 8, base_share=0, drawn=ground.drawn)
            ]
            await asyncio.sleep(0.05)
            await self._to_another(ground, tenant)
            await asyncio.gather(*running)
            for prompt in ground.prompts:
                await self.ask(ground, tally, tenant, short(prompt))
        if tally.failed or tally.refused:
            return tally.finding("present", f"{tally.failed + tally.refused} requests failed")
        return tally.by_answers(handled="each answer was wholly one version's, the one it names")

    async def moved_prefix(self, ground: Ground) -> Finding:
        """D7: the same long beginning before and after a promotion."""
        tally = ground.tally("D7")
        cached = [prompt for at, prompt in enumerate(ground.prompts) if at % 2]
        for tenant in self.tenants(ground):
            for _ in range(2):
                for prompt in cached:
                    await self.ask(ground, tally, tenant, short(prompt))
                await self._to_another(ground, tenant)
            for prompt in cached:
                await self.ask(ground, tally, tenant, short(prompt))
        if tally.failed or tally.refused:
            return tally.finding("present", f"{tally.failed + tally.refused} requests failed")
        return tally.by_answers(handled="a new version is never mixed with what the old one left")

    async def ask(self, ground: Ground, tally: Tally, tenant: str, question: Question) -> Judgement | None:
        reply = await ground.ask(
            tenant, question.prompt, max_tokens=question.length, stream=question.stream, n=question.n
        )
        return self._count(tally, tenant, reply, question.prompt)

    def _count(self, tally: Tally, tenant: str, reply: Reply, prompt: str) -> Judgement | None:
        """By the version that the answer names, which must be one of the tenant's own."""
        named = said(self._moves.known, reply)
        mine = own(self._moves.known, tenant)
        if reply.answered and (named is None or named.tenant != tenant):
            named = None  # judged as the tenant's own, and found wanting
        return tally.count(reply, weights=(named or mine[0]).weights, prompt=prompt)

    async def _move(self, ground: Ground, tally: Tally, tenants: list[str], over: asyncio.Event) -> None:
        """Promotions, canaries and roll backs without end; now and then a version comes and is revoked."""
        moves, number = self._moves, 0
        while not over.is_set():
            tenant = ground.churned.choice(tenants)
            number += 1
            try:
                if number % 3 == 0:
                    await asyncio.to_thread(moves.rollback, tenant)
                else:
                    another = ground.churned.choice(await asyncio.to_thread(others, moves, tenant))
                    percent = 50 if number % 5 == 0 else 100
                    await asyncio.to_thread(lambda: moves.promote(another, percent=percent))  # noqa: B023
                if number % 8 == 0:
                    await asyncio.to_thread(moves.come_and_go, ground, tenant, number)
                tally.add("moves")
            except PromotionNotReady:
                tally.add("not_ready")
            except TenonError as error:
                tally.add(error.code)
            await asyncio.sleep(0.2)
        for tenant in tenants:
            ground.live[tenant] = (await asyncio.to_thread(moves.live, tenant)).weights

    async def _to_another(self, ground: Ground, tenant: str) -> None:
        another = (await asyncio.to_thread(others, self._moves, tenant))[0]
        await asyncio.to_thread(self._moves.promote, another)
        await shown(ground, another)
        ground.live[tenant] = another.weights


def _long(ground: Ground) -> Question:
    return Question(
        weights="", prompt=ground.long_prompt, stream=True, n=1, salt=None, length=ground.plan.long_tokens
    )


def short(prompt: str) -> Question:
    return Question(weights="", prompt=prompt, stream=False, n=1, salt=None, length=16)


async def shown(ground: Ground, known: Known) -> None:
    """Until the tenant is answered by the version. Raises ReferenceRefused after a minute."""
    until = time.monotonic() + _SHOWN_WITHIN
    while True:
        reply = await ground.ask(known.tenant, "ready", max_tokens=1)
        if reply.answered and reply.version == known.version:
            return
        if time.monotonic() > until:
            raise ReferenceRefused(
                f"{known.tenant} is not answered by {known.version.short}: {reply.status} {reply.text[:160]}"
            )
        await asyncio.sleep(0.1)
