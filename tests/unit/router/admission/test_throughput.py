"""What the queue makes of an engine with four slots when many adapters are asked: no cliff, no starving.

The engine is a model of one, with its own clock: a step takes 10 ms and 0.6 ms for each request in the batch,
and makes one token of each (vLLM on two CPU cores with the demo base); a request takes 20 ms to get there.
Once as fast as it is alone, once 2.5 times slower, as beside others. ``python -m bench.engines adapters``
measures the same on a real one.
"""

import asyncio

import pytest

from registry.digests import Digest
from router.admission import Patience, Queue
from router.places import Place

SLOTS = 4
LENGTHS = (8, 56, 24, 40, 32)
"""Tokens of one answer after another."""
SECONDS = 12.0
SENDING = 0.02
"""Seconds from the queue into the batch."""
CLIENTS = 4
"""Of each adapter; each asks again as soon as it is answered."""


def version(adapter: int) -> Digest:
    return Digest.of(b"%d" % adapter)


async def served(adapters: int, slower: float) -> tuple[float, float]:
    """(tokens a second, the longest wait in the queue)."""
    now = 0.0
    queue = Queue(Patience(), ticks=lambda: now)
    home = Place("engine-0", "boot-0001", "http://engine-0", version(0), capacity=SLOTS)
    running: dict[int, int] = {}
    sent: list[tuple[float, int]] = []
    turns = dict.fromkeys(range(adapters * CLIENTS), 0)
    asked: dict[int, float] = {}
    tokens, longest = 0, 0.0

    async def ask(client: int) -> None:
        nonlocal longest
        adapter = client % adapters
        turns[client] += 1
        asked[client] = now
        if not queue.enter(home, str(adapter), version(adapter)):
            await queue.wait((home,), str(adapter), version(adapter))
        longest = max(longest, now - asked.pop(client))
        sent.append((now + SENDING * slower, client))

    async def settled() -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(ask(client)) for client in turns]
    await settled()
    steps = 0
    while now < SECONDS * slower:
        for due in [due for due in sent if due[0] <= now]:
            sent.remove(due)
            running[due[1]] = LENGTHS[(due[1] + turns[due[1]]) % len(LENGTHS)]
        now, steps = now + (0.010 + 0.0006 * len(running)) * slower, steps + 1
        tokens += len(running)
        running.update({client: left - 1 for client, left in running.items()})
        ended = [client for client, left in running.items() if not left]
        for client in ended:
            del running[client]
            queue.leave(home, str(client % adapters), version(client % adapters))
        await settled()
        tasks += [asyncio.create_task(ask(client)) for client in ended]
        if steps % 10 == 0 and queue._entries:  # what the timers of a running loop do
            queue._aged(next(iter(queue._entries)))
        await settled()
    longest = max([longest, *(now - since for since in asked.values())])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return tokens / (SECONDS * slower), longest


@pytest.mark.parametrize("slower", [1.0, 2.5])
@pytest.mark.parametrize("adapters", [8, 16])
async def test_more_adapters_than_slots_cost_a_sixth_at_most_and_none_starves(
    adapters: int, slower: float
) -> None:
    """A vLLM that is asked directly keeps its throughput and lets the others wait for as long as the first
    four are asked."""
    full, _ = await served(SLOTS, slower)
    rate, longest = await served(adapters, slower)
    assert rate >= full * 5 / 6
    # Requests wait for their aging, and then for each round of slots: a turn, which is two answers of 32
    # tokens, and the longest answer that began in it.
    step = 0.0196 * slower
    assert longest <= 1.0 + (2 * (32 * step + SENDING * slower) + 56 * step) * adapters / SLOTS


async def test_on_a_slow_engine_with_many_adapters_nobody_is_sent_away_for_the_sake_of_full_batches() -> None:
    """Turns as long as above would make a round of 38 seconds, and who waits for 30 is refused."""
    full, _ = await served(SLOTS, 2.5)
    rate, longest = await served(32, 2.5)
    assert longest < Patience().longest * 0.8
    assert rate >= 0.7 * full
