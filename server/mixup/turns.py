"""Who waits for whom (D13), and what the wait tells (S1)."""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from typing import TypeAlias

from server.mixup import texts
from server.mixup.finding import ENOUGH, Finding, Tally
from server.mixup.ground import Ground
from server.mixup.wire import Reply

Pair: TypeAlias = tuple[float, float]
"""Seconds for a prompt that another tenant has asked, and for one that nobody has."""

_LONG_PREFIX = 500
"""Words. 900 tokens took 377 ms new and 21 ms cached on two CPU cores."""
_TRIES = 5
_ROUNDS = 6
"""Of so many tries each; another only while the times before leave a doubt."""
_BUSY = 5
"""Requests in flight for each hot adapter: with fewer there are moments without any, and the slot is free."""
_TOLD = 0.5
"""Share of a new prompt's time below which a cached one stands out."""
_AS_LONG = 0.75
"""From this share on it does not; in between nothing can be told."""
_MOMENT = 1e-9


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
    """S1: one tenant asks something new, and another asks the same and something that is new to all; both of
    one adapter, as of a shared base. What the server says of its cache can only speak against it."""
    tally = ground.tally("S1")
    # The plan's own draws would repeat what an earlier run has left in caches.
    unheard = random.SystemRandom()
    seen: list[int] = []
    pairs: list[Pair] = []
    asked, share = 0, 1.0
    for _ in range(_ROUNDS):
        for _ in range(_TRIES):
            asked += 1
            tried = await _tried(ground, tally, unheard, new_first=bool(asked % 2))
            if all(reply.answered for reply in tried):
                again, new = tried[1:]
                pairs.append((again.seconds, new.seconds))
                seen.append(again.cached_tokens or 0)
        if not pairs:
            return tally.finding("not_tested", "long prompts are not answered")
        share = share_of(pairs)
        tally.figures.update(cached_tokens=float(max(seen)), time_ratio=round(share, 3))
        if any(seen):
            return tally.finding(
                "present", f"another tenant's prompt was {max(seen)} tokens in the cache, and said so"
            )
        if share >= _AS_LONG:
            break
    if share < _TOLD:
        return tally.finding("present", f"another tenant's prompt took {share:.0%} of a new one's time")
    if len(pairs) < asked:
        return tally.finding("not_tested", f"only {len(pairs)} of {asked} long prompts were answered")
    if share < _AS_LONG:
        tally.unclear += 1
        return tally.finding("not_tested", f"another tenant's prompt took {share:.0%} of a new one's time")
    return tally.finding("handled", f"a prompt of another tenant takes as long as a new one ({share:.0%})")


async def _tried(
    ground: Ground, tally: Tally, unheard: random.Random, *, new_first: bool
) -> tuple[Reply, Reply, Reply]:
    """The victim's prompt, the same of the attacker, and a new one of the attacker: in turns, so that neither
    is always the one that finds things warm."""
    victim, attacker = ground.twins or (ground.name_of(ground.weights()[0]),) * 2
    salts = {"none": (None, None), "each": ("salt-a", "salt-b"), "same": ("salt", "salt")}
    first, second = salts[ground.plan.tenant_salts]
    known, new = (texts.fresh(unheard, _LONG_PREFIX) for _ in range(2))

    async def ask(name: str, prompt: str, salt: str | None) -> Reply:
        reply = await ground.ask(name, prompt, max_tokens=1, salt=salt)
        tally.note(reply.status)
        return reply

    told = await ask(victim, known, first)
    prompts = (new, known) if new_first else (known, new)
    replies = [await ask(attacker, prompt, second) for prompt in prompts]
    again, fresh = reversed(replies) if new_first else replies
    return told, again, fresh


def share_of(pairs: Sequence[Pair]) -> float:
    """Of a new prompt's time, what the same prompt again takes.

    The fastest of each are compared, for load only ever slows, and a cache may be met now and then (several
    engines). And the middle of all pairs, for a new prompt may now and then be fast without any cache."""
    again, new = zip(*pairs, strict=True)
    fastest: float = min(again) / max(min(new), _MOMENT)
    middle = statistics.median(one / max(other, _MOMENT) for one, other in pairs)
    return min(fastest, middle)
