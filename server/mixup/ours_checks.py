"""The dangers as they would look from outside of Tenon, and what could make them."""

import asyncio
import random
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from registry.catalog.errors import PromotionNotReady
from registry.errors import IntakeRefused, TenonError
from server.mixup import lora, storm, suite
from server.mixup.errors import ReferenceRefused
from server.mixup.finding import Finding, Tally
from server.mixup.ground import Ground
from server.mixup.judging import Judgement
from server.mixup.storm import Question
from server.mixup.suite import Check, Storm
from server.mixup.wire import Reply

if TYPE_CHECKING:
    from server.mixup.ours import Known, Stack

_WEIGHTS: Final = "adapter_model.safetensors"
_SHOWN_WITHIN: Final = 60.0
"""Seconds from a promotion to the first answer of the version."""
_LONG_EACH: Final = 5
"""Of so many answers one is long enough for several moves to happen under it."""
_BASES: Final = ("tenon-base", "base", "demo", "tenon-null")


def storms(ours: "Stack") -> Mapping[str, tuple[Storm, float]]:
    kept = Checks(ours)
    return {"Q1": (storm.plain, 0.4), "D1": (kept.base, 0.05), "D2": (kept.churn, 0.5)}


def checks(ours: "Stack") -> Mapping[str, Check]:
    kept = Checks(ours)
    mine: dict[str, Check] = {
        "D3": kept.swapped_files,
        "D4": kept.deleted_files,
        "D5": kept.moved_under_load,
        "D6": kept.no_loading,
        "D7": kept.moved_prefix,
        "D12": kept.broken_values,
        "D16": kept.other_structure,
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
        waiting = iter(asked)

        async def ask_on() -> None:
            for tenant, question in waiting:
                await self._ask(ground, tally, tenant, question)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(ground.plan.together):
                    group.create_task(ask_on())
        finally:
            over.set()
            await churner
        if tally.failed or tally.refused:
            return tally.finding("present", f"{tally.failed + tally.refused} requests failed under churn")
        return tally.by_answers(handled="every answer was the version's that it names, and its tenant's")

    async def swapped_files(self, ground: Ground) -> Finding:
        """D3: on the node's disk, below everything."""
        tally = ground.tally("D3")
        files = self._cached()
        if len(files) < 2:
            return tally.finding("not_tested", "no cache on this machine")
        kept = [(file, file.read_bytes()) for file in files]
        try:
            for (file, _), (_, other) in zip(kept, kept[1:] + kept[:1], strict=True):
                _overwrite(file, other)
            await self._everybody(ground, tally)
        finally:
            for file, data in kept:
                if file.parent.exists():
                    _overwrite(file, data)
        return tally.by_answers(handled="files swapped in the cache changed no answer", refusing_handles=True)

    async def deleted_files(self, ground: Ground) -> Finding:
        """D4"""
        tally = ground.tally("D4")
        files = self._cached()
        if not files:
            return tally.finding("not_tested", "no cache on this machine")
        for folder in (file.parent for file in files):
            folder.parent.chmod(0o700)
            folder.chmod(0o700)
            shutil.rmtree(folder)
        await self._everybody(ground, tally)
        if tally.failed or tally.refused:
            return tally.finding("present", f"{tally.failed + tally.refused} requests failed after it")
        return tally.by_answers(handled="the whole cache was deleted, and everybody was answered as before")

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

    async def broken_values(self, ground: Ground) -> Finding:
        """D12"""
        root, shapes = ground.folder / "broken", self._ours.shapes
        folders = {
            "NaN": lora.write_not_finite(root / "nan", shapes, seed=1),
            "huge": lora.write(root / "huge", shapes, seed=2, size=1e20),
        }
        return await self._refused(ground.tally("D12"), ground, folders)

    async def other_structure(self, ground: Ground) -> Finding:
        """D16"""
        root, shapes = ground.folder / "odd", self._ours.shapes
        folders = {
            "other layers": lora.write_other_layers(root / "layers", shapes, seed=3),
            "another width": lora.write_other_width(root / "width", shapes, seed=4),
            "no effect": lora.write(root / "zero", shapes, seed=5, size=0),
        }
        return await self._refused(ground.tally("D16"), ground, folders)

    async def _refused(self, tally: Tally, ground: Ground, folders: Mapping[str, Path]) -> Finding:
        tenant, taken = next(iter(ground.voices)), []
        for kind, folder in folders.items():
            try:
                await asyncio.to_thread(self._ours.push, tenant, kind, folder)
            except IntakeRefused:
                tally.note(400)
            else:
                taken.append(kind)
        if taken:
            return tally.finding("present", f"the registry took: {', '.join(taken)}")
        return tally.finding("handled", "refused by the registry, before any engine")

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
        for tenant in ground.voices:
            for prompt in ground.prompts:
                await self._ask(ground, tally, tenant, _short(prompt))

    async def _move(self, ground: Ground, tally: Tally, tenants: list[str], over: asyncio.Event) -> None:
        """Promotions and roll backs without end; now and then a version comes new, and another is revoked."""
        number = 0
        while not over.is_set():
            tenant = ground.churned.choice(tenants)
            number += 1
            try:
                if number % 3 == 0:
                    await asyncio.to_thread(self._ours.rollback, tenant)
                else:
                    await asyncio.to_thread(
                        self._ours.promote, ground.churned.choice(self._ours.others_of(tenant))
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

    def _cached(self) -> list[Path]:
        return sorted(self._ours.workspace.cache.rglob(_WEIGHTS))


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


def _overwrite(file: Path, data: bytes) -> None:
    """As somebody with the rights of the node's administrator would."""
    file.parent.chmod(0o700)
    file.unlink()
    file.write_bytes(data)
