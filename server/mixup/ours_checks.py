"""The dangers as they would look from outside of Tenon, and what could make them."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from registry.catalog.errors import PromotionNotReady
from registry.errors import TenonError
from server.mixup import lora, ours_intake, storm, suite
from server.mixup.errors import ReferenceRefused
from server.mixup.finding import Finding, Tally
from server.mixup.ground import Ground
from server.mixup.judging import Judgement
from server.mixup.nodes import Node, until
from server.mixup.storm import Question
from server.mixup.suite import Check, Storm
from server.mixup.wire import Reply

if TYPE_CHECKING:
    from server.mixup.ours import Known, Stack

_NOTICED_WITHIN, _BACK_WITHIN = 90.0, 240.0
"""Seconds: some of the agent's heartbeats; a start of vLLM on a busy machine."""
_BETWEEN: Final = 1.0
"""Seconds between two rounds of everybody's requests, which the restart has to itself."""
_INTERRUPTED: Final = "engine_interrupted"
"""What a client is told whose answer had begun on an engine that died: nobody else can end it."""
_SHOWN_WITHIN: Final = 60.0
"""Seconds from a promotion to the first answer of the version."""
_LONG_EACH: Final = 8
"""Of so many answers one is long enough for several moves to happen under it."""
_BASES: Final = ("tenon-base", "base", "demo", "tenon-null")


def storms(ours: "Stack") -> Mapping[str, tuple[Storm, float]]:
    kept = Checks(ours)
    return {"Q1": (storm.plain, 0.6), "D1": (kept.base, 0.05), "D2": (kept.churn, 0.35)}


def checks(ours: "Stack") -> Mapping[str, Check]:
    kept = Checks(ours)
    mine: dict[str, Check] = {
        "D3": kept.swapped_files,
        "D4": kept.deleted_files,
        "D5": kept.moved_under_load,
        "D6": kept.no_loading,
        "D7": kept.moved_prefix,
        "D12": partial(ours_intake.broken_values, ours=ours),
        "D16": partial(ours_intake.other_structure, ours=ours),
    }
    return {danger: mine.get(danger, check) for danger, check in suite.CHECKS.items()}


class Checks:
    """Each is a Check of :mod:`server.mixup.suite` or a storm."""

    def __init__(self, ours: "Stack") -> None:
        self._ours = ours

    async def base(self, ground: Ground, count: int) -> Finding:
        """D1: whatever the base is called inside, nobody gets to it, and so it is in nobody's batch."""
        tally = ground.tally("D1")
        names = [
            *_BASES,
            *(str(each.version).replace("sha256:", "tenon-") for each in self._ours.known.values()),
        ]
        answered = 0
        for at in range(max(count, len(names))):
            tenant = list(ground.voices)[at % len(ground.voices)]
            key = ground.voices[tenant].key
            reply = await ground.ask(names[at % len(names)], ground.prompts[0], max_tokens=1, key=key)
            tally.note(reply.status)
            answered += reply.status == 200
        if answered:
            return tally.finding("present", f"{answered} requests for what only engines know were answered")
        return tally.finding("handled", "nobody can ask for the bare base, nor by an engine's name")

    async def churn(self, ground: Ground, count: int) -> Finding:
        """D2: versions are promoted, rolled back, pushed and revoked while all are answered."""
        tally = ground.tally("D2")
        drawn = random.Random(f"ours/{ground.plan.seed}")  # noqa: S311 (it must repeat)
        tenants = [tenant for tenant in ground.voices if len(self._versions(tenant)) > 1]
        asked = [
            (drawn.choice(tenants), question if at % _LONG_EACH else _long(ground))
            for at, question in enumerate(storm.questions(ground, count, base_share=0, drawn=drawn))
        ]
        over = asyncio.Event()
        churner = asyncio.create_task(self._move(ground, tally, tenants, over))
        waiting = iter(enumerate(asked))

        async def ask_on() -> None:
            for at, (tenant, question) in waiting:
                if at == count // 3 and len(self._ours.nodes) > 1:
                    tally.figures["killed"] = await asyncio.to_thread(self._ours.nodes[-1].kill)
                await self._ask(ground, tally, tenant, question)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(ground.plan.together):
                    group.create_task(ask_on())
        finally:
            over.set()
            await churner
        told = 0
        if "killed" in tally.figures:
            told = int(sum(tally.figures.get(f"failed: {status} {_INTERRUPTED}", 0) for status in (500, 502)))
        if lost := tally.failed + tally.refused - told:
            return tally.finding("present", f"{lost} requests failed under churn")
        if told > ground.plan.together:
            return tally.finding("present", f"{told} answers ended with an error, more than had begun")
        if await self._whole() is None:
            return tally.finding("present", "the killed engine did not come back")
        died = f"; {told} answers that the killed engine had begun ended with an error" if told else ""
        return tally.by_answers(
            handled=f"every answer was the version's that it names, and its tenant's{died}"
        )

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
            f"{back:.0f} s later"
        )

    async def _whole(self, meanwhile: Callable[[], Awaitable[None]] | None = None) -> float | None:
        """Seconds until every engine serves all that it should."""
        nodes = self._ours.nodes
        return await until(
            lambda: all(node.state()[1] for node in nodes), limit=_BACK_WITHIN, meanwhile=meanwhile
        )

    async def moved_under_load(self, ground: Ground) -> Finding:
        """D5: the public name stands for other weights from one moment to the next."""
        tally = ground.tally("D5")
        for tenant in [each for each in ground.voices if len(self._versions(each)) > 1][:2]:
            running = [
                asyncio.create_task(self._ask(ground, tally, tenant, question))
                for question in storm.questions(ground, 8, base_share=0, drawn=ground.drawn)
            ]
            await asyncio.sleep(0.05)
            await self._to_another(ground, tenant)
            await asyncio.gather(*running)
            for prompt in ground.prompts:
                await self._ask(ground, tally, tenant, _short(prompt))
        if tally.failed or tally.refused:
            return tally.finding("present", f"{tally.failed + tally.refused} requests failed")
        return tally.by_answers(handled="each answer was wholly one version's, the one it names")

    async def no_loading(self, ground: Ground) -> Finding:
        """D6: with every tenant's key."""
        tally = ground.tally("D6")
        opened = 0
        for name, voice in ground.voices.items():
            for path in (ground.loader.load_path, ground.loader.unload_path):
                body = {"lora_name": name, "lora_path": str(ground.folder), "load_inplace": True}
                status, _ = await ground.wire.call("POST", path, body, key=voice.key)
                tally.note(status)
                opened += status not in (401, 403, 404, 405)
        if opened:
            return tally.finding("present", "tenants reach what loads adapters")
        return tally.finding(
            "handled", "no tenant reaches what loads adapters, and the agent never replaces one"
        )

    async def moved_prefix(self, ground: Ground) -> Finding:
        """D7: the same long beginning before and after a promotion."""
        tally = ground.tally("D7")
        cached = [prompt for at, prompt in enumerate(ground.prompts) if at % 2]
        for tenant in [each for each in ground.voices if len(self._versions(each)) > 1]:
            for _ in range(2):
                for prompt in cached:
                    await self._ask(ground, tally, tenant, _short(prompt))
                await self._to_another(ground, tenant)
            for prompt in cached:
                await self._ask(ground, tally, tenant, _short(prompt))
        return tally.by_answers(handled="a new version is never mixed with what the old one left")

    async def _ask(self, ground: Ground, tally: Tally, tenant: str, question: Question) -> Judgement | None:
        reply = await ground.ask(
            tenant, question.prompt, max_tokens=question.length, stream=question.stream, n=question.n
        )
        return self._count(tally, tenant, reply, question.prompt)

    def _count(self, tally: Tally, tenant: str, reply: Reply, prompt: str) -> Judgement | None:
        """By the version that the answer names, which must be one of the tenant's own."""
        said = self._ours.said(reply)
        own = self._versions(tenant)
        if reply.answered and (said is None or said.tenant != tenant):
            said = None  # judged as the tenant's own, and found wanting
        return tally.count(reply, weights=(said or own[0]).weights, prompt=prompt)

    async def _everybody(self, ground: Ground, tally: Tally) -> None:
        async def one(tenant: str) -> None:
            for prompt in ground.prompts:
                await self._ask(ground, tally, tenant, _short(prompt))

        await asyncio.gather(*map(one, ground.voices))

    async def _move(self, ground: Ground, tally: Tally, tenants: list[str], over: asyncio.Event) -> None:
        """Promotions, canaries and roll backs without end; now and then a version comes and is revoked."""
        number = 0
        while not over.is_set():
            tenant = ground.churned.choice(tenants)
            number += 1
            try:
                if number % 3 == 0:
                    await asyncio.to_thread(self._ours.rollback, tenant)
                else:
                    another = ground.churned.choice(self._ours.others_of(tenant))
                    await asyncio.to_thread(
                        self._ours.promote, another, percent=50 if number % 5 == 0 else 100
                    )
                if number % 8 == 0:
                    await asyncio.to_thread(self._come_and_go, ground, tenant, number)
                tally.figures["moves"] = tally.figures.get("moves", 0) + 1
            except PromotionNotReady:
                tally.figures["not_ready"] = tally.figures.get("not_ready", 0) + 1
            except TenonError as error:
                tally.figures[error.code] = tally.figures.get(error.code, 0) + 1
            await asyncio.sleep(0.2)
        for tenant in tenants:
            ground.live[tenant] = self._ours.live(tenant).weights

    def _come_and_go(self, ground: Ground, tenant: str, number: int) -> None:
        """Never promoted: that it is pushed and revoked must not be noticed by anybody."""
        folder = lora.write(ground.folder / "spare" / str(number), self._ours.shapes, seed=5000 + number)
        spare = self._ours.push(tenant, f"spare-{number}", folder)
        del self._ours.known[str(spare.version)]
        self._ours.revoke(spare)

    async def _to_another(self, ground: Ground, tenant: str) -> None:
        another = self._ours.others_of(tenant)[0]
        await asyncio.to_thread(self._ours.promote, another)
        await shown(ground, self._ours, another)
        ground.live[tenant] = another.weights

    def _versions(self, tenant: str) -> list["Known"]:
        return [each for each in self._ours.known.values() if each.tenant == tenant]


def _long(ground: Ground) -> Question:
    return Question(
        weights="", prompt=ground.long_prompt, stream=True, n=1, salt=None, length=ground.plan.long_tokens
    )


def _short(prompt: str) -> Question:
    return Question(weights="", prompt=prompt, stream=False, n=1, salt=None, length=16)


async def shown(ground: Ground, ours: "Stack", known: "Known") -> None:
    """Until the tenant is answered by the version. Raises ReferenceRefused after a minute."""
    until = time.monotonic() + _SHOWN_WITHIN
    while True:
        reply = await ground.ask(known.tenant, "ready", max_tokens=1)
        said = ours.said(reply)
        if reply.answered and said is not None and said.version == known.version:
            return
        if time.monotonic() > until:
            raise ReferenceRefused(
                f"{known.tenant} is not answered by {known.version.short}: {reply.status} {reply.text[:160]}"
            )
        await asyncio.sleep(0.1)
