"""Weights that change under a name: on disk (D3, D4), under load (D5), in place (D6), in the cache (D7)."""

import asyncio
import shutil
from pathlib import Path

from server.mixup import lora
from server.mixup.finding import Finding, Tally
from server.mixup.ground import Ground
from server.mixup.harm import harm
from server.mixup.wire import Reply

_UNWRITABLE = "adapters cannot be made and loaded here"
_UNTIL_TAKEN = 4
"""Times a long answer: it has to outlast a load and the answers of the others."""
_ATTEMPTS = 8
_HANGS = 30.0
"""Seconds. vLLM 0.32 whose engine died of D5 kept its clients waiting for more than 80."""


async def evicted_and_swapped(ground: Ground) -> Finding:
    """D3"""
    tally = ground.tally("D3")
    if not ground.writes:
        return tally.finding("not_tested", _UNWRITABLE)
    one, other = ground.weights()[:2]
    folder = _own_folder(ground, one, "swapped")
    name = await ground.load(one, folder=folder)
    tally.count(await ground.ask(name, ground.prompts[0]), weights=one, prompt=ground.prompts[0])
    await _push_out(ground)
    lora.replace(folder, ground.folder_of(other))
    for prompt in ground.prompts[1:]:
        tally.count(await ground.ask(name, prompt), weights=one, prompt=prompt)
    await ground.unload(name)
    return tally.by_answers(handled="files that changed on disk changed no answer", refusing_handles=True)


async def evicted_and_deleted(ground: Ground) -> Finding:
    """D4: can end the server."""
    tally = ground.tally("D4")
    if not ground.writes:
        return tally.finding("not_tested", _UNWRITABLE)
    one, *_, neighbour = ground.weights()
    folder = _own_folder(ground, one, "deleted")
    name = await ground.load(one, folder=folder)
    await _push_out(ground)
    shutil.rmtree(folder)
    prompt = ground.prompts[0]
    tally.count(await ground.ask(name, prompt), weights=one, prompt=prompt)
    # Asked whether or not that failed: the danger is what it does to everybody else.
    beside = await ground.ask(ground.name_of(neighbour), prompt)
    tally.count(beside, weights=neighbour, prompt=prompt)
    return await _survived(ground, tally, "the folder of one adapter was deleted, and")


async def taken_again(ground: Ground) -> Finding:
    """D5: can end the server."""
    tally = ground.tally("D5")
    if not ground.writes:
        return tally.finding("not_tested", _UNWRITABLE)
    one, other = (await ground.long_ones(2))[:2]
    name = await ground.load(one, folder=_own_folder(ground, one, "first"))
    second = _own_folder(ground, other, "second")
    running = [
        asyncio.create_task(
            ground.ask(
                name,
                ground.long_prompt,
                max_tokens=_UNTIL_TAKEN * ground.plan.long_tokens,
                stream=True,
                **ground.long(),
            )
        )
        for _ in range(3)
    ]
    await asyncio.sleep(ground.plan.head_start)
    await ground.unload(name)
    offer = await ground.offer(other, name=name, folder=second)
    # In one batch: what was asked before, what is asked of the same name now, and as many others as there are
    # slots, so that whatever the server takes for unused has to go.
    beside = ground.weights()[2 : 2 + ground.plan.slots]
    after = [(other, name)] if offer.taken else []
    asked = [*after, *((weights, ground.name_of(weights)) for weights in beside)]
    quick = [asyncio.create_task(ground.ask(called, ground.prompts[0])) for _, called in asked]
    await asyncio.wait([*running, *quick], timeout=_HANGS)
    for task in running:
        _count(tally, task, one, ground.long_prompt)
    for (weights, _), task in zip(asked, quick, strict=True):
        _count(tally, task, weights, ground.prompts[0])
    what = "a name was loaded again under load, and" if offer.taken else "a name was not given again, and"
    found = await _survived(ground, tally, what)
    if found.outcome != "present":
        found = await harm(ground, tally, offer.status, "loading a name again") or found
    if offer.taken and await ground.wire.alive():
        await ground.unload(name)
    return found


async def in_place(ground: Ground) -> Finding:
    """D6"""
    tally = ground.tally("D6")
    if not ground.writes or ground.loader.dialect != "vllm":
        return tally.finding("not_applicable", "the server has no replacement in place")
    one, other = (await ground.long_ones(2))[:2]
    kept = "the answer in flight kept its weights"
    # One look proves little: a busy machine may end the answer before it has loaded, and what is loaded late
    # may change a few tokens that both adapters say alike.
    for attempt in range(_ATTEMPTS):
        name = await ground.load(one, folder=_own_folder(ground, one, f"before-{attempt}"))
        after = _own_folder(ground, other, f"after-{attempt}")
        asked = ground.ask(
            name, ground.long_prompt, max_tokens=ground.plan.long_tokens, stream=True, **ground.long()
        )
        running = asyncio.create_task(asked)
        await asyncio.sleep(ground.plan.head_start / (1 + attempt))
        status, _ = await ground.loader.load(name, after, inplace=True)
        in_flight = not running.done()
        tally.count(await running, weights=one, prompt=ground.long_prompt)
        await ground.unload(name)  # the flag is sticky: every step would read the disk again
        found = await harm(ground, tally, status, "replacement in place") or tally.by_answers(
            handled=kept if status == 200 else f"replacement in place is refused ({status}), and {kept}"
        )
        if found.outcome == "present" or (in_flight and status != 200):
            break
    return found


async def cached_prefix(ground: Ground) -> Finding:
    """D7, the way this operator brings new weights."""
    tally = ground.tally("D7")
    if not ground.writes:
        return tally.finding("not_tested", _UNWRITABLE)
    pairs = list(zip(ground.weights(), ground.weights()[1:], strict=False))[:3]
    cached = [prompt for at, prompt in enumerate(ground.prompts) if at % 2]  # the ones that share a beginning
    for at, (one, other) in enumerate(pairs):
        folder = _own_folder(ground, one, f"prefix-{at}")
        name = await ground.load(one, folder=folder)
        for prompt in cached:
            tally.count(await ground.ask(name, prompt), weights=one, prompt=prompt)
        await ground.unload(name)
        if ground.plan.update == "fresh":
            name = await ground.load(other, folder=_own_folder(ground, other, f"prefix-{at}-new"))
        else:
            lora.replace(folder, ground.folder_of(other))
            offer = await ground.offer(other, name=name, folder=folder)
            if not offer.taken:
                harmed = await harm(ground, tally, offer.status, "loading a name again")
                return harmed or tally.by_answers(handled="a name is never taken twice")
        for prompt in cached:
            tally.count(await ground.ask(name, prompt), weights=other, prompt=prompt)
        await ground.unload(name)
    return tally.by_answers(handled="new weights answered without what the old ones had left in the cache")


def _count(tally: Tally, task: "asyncio.Task[Reply]", weights: str, prompt: str) -> None:
    if task.done():
        tally.count(task.result(), weights=weights, prompt=prompt)
    else:
        task.cancel()
        tally.count(Reply(status=0, text="no end of it"), weights=weights, prompt=prompt)


def _own_folder(ground: Ground, weights: str, name: str) -> Path:
    """A folder that nothing else is loaded from, so that it can be changed."""
    folder = ground.folder / "own" / f"{name}-{ground.fresh_name()}"
    shutil.copytree(ground.folder_of(weights), folder)
    return folder


async def _push_out(ground: Ground) -> None:
    """Use every other adapter, twice over: what is kept in memory for the least recently used one ends."""
    for _ in range(2):
        for weights in ground.weights():
            name = await ground.load(weights)
            await ground.ask(name, ground.prompts[0], max_tokens=1)
            await ground.unload(name)


async def _survived(ground: Ground, tally: Tally, what: str) -> Finding:
    if not await ground.wire.alive():
        return tally.finding("present", f"{what} the server ended or hangs")
    if tally.mixups:
        return tally.finding("present", f"{what} {tally.mixups} answers came from elsewhere")
    if tally.failed:
        return tally.finding("present", f"{what} {tally.failed} requests failed")
    return tally.by_answers(handled=f"{what} everybody else was answered as before", refusing_handles=True)
