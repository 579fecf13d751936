"""Who waits for whom (D13), and what the wait tells (S1)."""

import asyncio
import statistics
import time

from server.mixup import texts
from server.mixup.finding import ENOUGH, Finding
from server.mixup.ground import Ground

_LONG_PREFIX = 500
"""Words. 900 tokens took 377 ms new and 21 ms cached on two CPU cores."""
_TRIES = 5
_BUSY = 5
"""Requests in flight for each hot adapter: with fewer there are moments without any, and the slot is free."""
_TOLD = 0.5
"""Share of a new prompt's time below which a cached one stands out."""


async def starvation(ground: Ground) -> Finding:
    """D13: one adapter more than there are slots."""
    tally, plan = ground.tally("D13"), ground.plan
    names = ground.weights()
    if len(names) <= plan.slots:
        return tally.finding("not_tested", f"needs more than {plan.slots} adapters")
    hot, cold = names[: plan.slots], names[plan.slots]
    until = time.monotonic() + plan.starving
    waits: list[float] = []

    async def keep_busy(weights: str) -> None:
        while time.monotonic() < until:
            # Of different lengths, or all would end in one step and leave their slots together.
            length = ground.drawn.randint(plan.long_tokens // 4, plan.long_tokens)
            reply = await ground.ask(
                ground.name_of(weights), ground.prompts[0], max_tokens=length, stream=True, **ground.long()
            )
            waits.append(reply.first_seconds)
            tally.note(reply.status)

    busy = [asyncio.create_task(keep_busy(weights)) for weights in hot for _ in range(_BUSY)]
    await asyncio.sleep(plan.starving / 8)
    asked = time.monotonic()
    reply = await ground.ask(ground.name_of(cold), ground.prompts[0], max_tokens=1)
    waited = time.monotonic() - asked
    ended = time.monotonic() >= until
    await asyncio.gather(*busy)
    tally.count(reply, weights=cold, prompt=ground.prompts[0])
    tally.figures.update(
        cold_seconds=round(waited, 3), hot_seconds=round(statistics.median(waits or [0.0]), 3)
    )
    if tally.mixups:
        return tally.finding("present", "the cold adapter was answered by another")
    if not reply.answered:
        return tally.finding("present", f"the cold request failed ({reply.status})")
    if ended:
        return tally.finding("present", f"the cold request waited {waited:.1f} s, until the others had ended")
    if (lost := tally.failed + tally.refused) > (1 - ENOUGH) * tally.requests:
        return tally.finding("not_tested", f"the slots were not kept busy: {lost} requests failed")
    return tally.by_answers(handled=f"the cold request was answered after {waited:.1f} s beside busy slots")


async def shared_prefixes(ground: Ground) -> Finding:
    """S1: one tenant asks something new, another asks the same; both of one adapter, as of a shared base."""
    tally = ground.tally("S1")
    one, other = ground.twins or (ground.name_of(ground.weights()[0]),) * 2
    salts = {"none": (None, None), "each": ("salt-a", "salt-b"), "same": ("salt", "salt")}
    first, second = salts[ground.plan.tenant_salts]
    seen: list[int] = []
    new: list[float] = []
    again: list[float] = []
    for _ in range(_TRIES):
        prompt = texts.fresh(ground.drawn, _LONG_PREFIX)
        victim = await ground.ask(one, prompt, max_tokens=1, salt=first)
        attacker = await ground.ask(other, prompt, max_tokens=1, salt=second)
        for reply in (victim, attacker):
            tally.note(reply.status)
        if not victim.answered or not attacker.answered:
            continue
        new.append(victim.seconds)
        again.append(attacker.seconds)
        if attacker.cached_tokens is not None:
            seen.append(attacker.cached_tokens)
    if not new:
        return tally.finding("not_tested", "long prompts are not answered")
    ratio = statistics.median(again) / max(statistics.median(new), 1e-9)
    tally.figures.update(cached_tokens=float(max(seen, default=0)), time_ratio=round(ratio, 3))
    if any(seen):
        return tally.finding(
            "present", f"another tenant's prompt was {max(seen)} tokens in the cache, and said so"
        )
    if not seen and ratio < _TOLD:
        return tally.finding("present", f"another tenant's prompt took {ratio:.0%} of a new one's time")
    if len(new) < _TRIES:
        return tally.finding("not_tested", f"only {len(new)} of {_TRIES} long prompts were answered")
    return tally.finding("handled", f"a prompt of another tenant takes as long as a new one ({ratio:.0%})")
