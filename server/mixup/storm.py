"""Many answers at once, each judged: adapters alone (Q1), with the base among them (D1), under churn (D2)."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from server.mixup.errors import ReferenceRefused
from server.mixup.finding import Finding, Tally
from server.mixup.ground import Ground
from server.mixup.judging import BASE

_SALTS = (None, None, "tenant-a", "tenant-b")


@dataclass(frozen=True, slots=True)
class Question:
    weights: str
    prompt: str
    stream: bool
    n: int
    salt: str | None
    length: int


def questions(ground: Ground, count: int, *, base_share: float, drawn: random.Random) -> list[Question]:
    """The same for the same seed, whatever the server does."""
    names, salts = ground.weights(), _SALTS if ground.loader.dialect == "vllm" else (None,)
    found = []
    for _ in range(count):
        of_base = base_share > 0 and drawn.random() < base_share
        found.append(
            Question(
                weights=BASE if of_base else drawn.choice(names),
                prompt=drawn.choice(ground.prompts),
                stream=drawn.random() < 0.3,
                n=2 if drawn.random() < 0.1 else 1,
                salt=drawn.choice(salts),
                length=drawn.choice((1, 4, 16, 16)),
            )
        )
    return found


async def plain(ground: Ground, count: int) -> Finding:
    """Q1: nothing is loaded or unloaded meanwhile."""
    tally = ground.tally("Q1")
    if pairs := ground.references.alike():
        shown = ", ".join(f"{one} and {other}" for one, other in pairs[:3])
        return tally.finding(
            "present", f"{len(pairs)} pairs answer alike while nothing else is asked: {shown}"
        )
    await ask_all(ground, tally, questions(ground, count, base_share=0, drawn=ground.drawn))
    return tally.by_answers(handled="every answer was its own adapter's")


async def with_base(ground: Ground, count: int) -> Finding:
    """D1"""
    tally = ground.tally("D1")
    if ground.base is None:
        return tally.finding("not_applicable", "the server answers to no name with the bare base")
    await ask_all(ground, tally, questions(ground, count, base_share=0.4, drawn=ground.drawn))
    return tally.by_answers(handled="base and adapters kept apart in shared batches")


async def under_churn(ground: Ground, count: int) -> Finding:
    """D2: short answers while names come and go, then long ones that loads happen under."""
    tally = ground.tally("D2")
    if not ground.writes:
        return tally.finding("not_tested", "nothing can be loaded while answers are decoded")
    long = min(ground.plan.rounds, max(1, count // (2 * ground.plan.slots)))
    short = max(0, count - long * ground.plan.slots)
    asked = questions(ground, short, base_share=0, drawn=ground.drawn)
    churner = asyncio.create_task(_churn(ground, tally))
    try:
        await ask_all(ground, tally, asked)
    finally:
        churner.cancel()
        await asyncio.gather(churner, return_exceptions=True)
    await long_rounds(ground, tally, long)
    if not tally.figures.get("loads"):
        return tally.finding("not_tested", "nothing was loaded while answers were decoded")
    return tally.by_answers(handled="no answer changed while others were loaded")


async def long_rounds(ground: Ground, tally: Tally, rounds: int) -> None:
    """As many long answers as there are slots, so that a load must take a slot that is in use."""
    chosen = await ground.long_ones(ground.plan.slots)
    for _ in range(rounds):
        running = [
            asyncio.create_task(
                ground.ask(
                    ground.name_of(weights),
                    ground.long_prompt,
                    max_tokens=ground.plan.long_tokens,
                    stream=True,
                )
            )
            for weights in chosen
        ]
        while not all(task.done() for task in running):
            await _load_another(ground, tally, set(chosen))
            await asyncio.sleep(ground.plan.head_start / 6)
        for weights, task in zip(chosen, running, strict=True):
            tally.count(task.result(), weights=weights, prompt=ground.long_prompt)


async def ask_all(ground: Ground, tally: Tally, asked: Sequence[Question]) -> None:
    """In the given order, ``together`` at a time."""
    waiting = iter(asked)
    until = None if ground.plan.seconds is None else time.monotonic() + ground.plan.seconds

    async def ask_on() -> None:
        for question in waiting:
            if until is not None and time.monotonic() > until:
                return
            name = ground.base if question.weights == BASE else ground.name_of(question.weights)
            reply = await ground.ask(
                name,
                question.prompt,
                max_tokens=question.length,
                stream=question.stream,
                n=question.n,
                salt=question.salt,
            )
            tally.count(reply, weights=question.weights, prompt=question.prompt)
            if reply.gone and not await ground.wire.alive():
                for unheard in waiting:  # what it never heard it has not answered, either
                    tally.count(reply, weights=unheard.weights, prompt=unheard.prompt)

    async with asyncio.TaskGroup() as group:
        for _ in range(ground.plan.together):
            group.create_task(ask_on())


async def _churn(ground: Ground, tally: Tally) -> None:
    while True:
        await _load_another(ground, tally, set())
        await asyncio.sleep(ground.plan.head_start / 3)


async def _load_another(ground: Ground, tally: Tally, busy: set[str]) -> None:
    """A new name for weights that are known, in memory for a moment."""
    weights = ground.churned.choice(
        [name for name in ground.weights() if name not in busy] or ground.weights()
    )
    try:
        name = await ground.load(weights)
    except ReferenceRefused:
        tally.figures["refused_loads"] = tally.figures.get("refused_loads", 0) + 1
        return
    tally.figures["loads"] = tally.figures.get("loads", 0) + 1
    # Names that the storm asks for stay: only this one goes again.
    await ground.unload(name)
