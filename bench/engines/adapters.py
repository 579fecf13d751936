"""Throughput against the number of adapters that are asked for, with the same slots: Tenon and plain vLLM.

``deep``: as many clients at each adapter however many adapters there are, so that a full batch can always be
had from the slots there are. ``spread``: as many clients in all, so that beyond the slots no scheduler
whatever has a full batch (one adapter can only be worked on while it has a slot). ``fleet``: the same before
two engines, which plain vLLMs are asked in turn and Tenon's router as it places requests.

No prompt is asked twice: of few adapters all would soon be in vLLM's cache, which keeps adapters apart.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.engines.asking import Answer, Question, ask
from bench.router.load import RequestsFailed
from server.cli import render

SLOTS = 4
COUNTS = (1, 2, 4, 8, 16, 32)
DEEP, SPREAD = 4, 32
KINDS = {"deep": 1, "spread": 1, "fleet": 2}
"""How many engines there are."""
_ROUNDS = 3
_LENGTHS = (8, 56, 24, 40, 32)
"""Tokens of one request after another: answers are not equally long, so no batch ends at once."""
_PROMPT = 24
"""Tokens."""
_WARM = 1.0
"""Seconds before any token is counted."""


@dataclass(frozen=True, slots=True)
class Side:
    name: str
    urls: Sequence[str]
    """Asked in turn."""
    voices: Sequence[tuple[str, str | None]]
    """Of each adapter: the model's name, the key."""


async def measure(
    session: aiohttp.ClientSession, kind: str, sides: Sequence[Side], words: Sequence[int], seconds: float
) -> dict[str, Any]:
    """Side -> adapters -> medians, but for the longest wait. In turns, so that a noisy neighbour is
    everybody's. ``words``: tokens that prompts are made of."""
    rng = random.Random(6)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {side.name: {} for side in sides}
    for turn in range(_ROUNDS):
        for count in COUNTS:
            for side in sides if turn & 1 else sides[::-1]:
                many = DEEP * count if kind == "deep" else SPREAD
                figures = await _load(session, side, rng, words, count, many, seconds)
                render.note(f"{kind}: {count} adapters, {many} clients, {side.name}: {figures}")
                found[side.name].setdefault(str(count), []).append(figures)
    return {
        side: {count: _summed_up(runs) for count, runs in counts.items()} for side, counts in found.items()
    }


def _summed_up(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def all_of(figure: str) -> list[Any]:
        return [run[figure] for run in runs]

    rates = all_of("tokens_per_second")
    return {
        "tokens_per_second": statistics.median(rates),
        "tokens_per_second_of_each": rates,
        "requests": sum(all_of("requests")),
        "first_ms_p50": statistics.median(all_of("first_ms_p50")),
        "first_ms_most": max(all_of("first_ms_most")),
        "adapters_unserved": max(all_of("adapters_unserved")),
    }


async def _load(
    session: aiohttp.ClientSession,
    side: Side,
    rng: random.Random,
    words: Sequence[int],
    adapters: int,
    many: int,
    seconds: float,
) -> dict[str, Any]:
    """Every client asks its own adapter, again as soon as it has its answer. What is under way at the end is
    waited for: a request that nobody served until then shows in the longest wait."""
    began = time.perf_counter() + _WARM
    until = began + seconds
    answers: list[tuple[int, Answer]] = []

    async def client(number: int) -> None:
        model, key = side.voices[number % adapters]
        turn = number
        while time.perf_counter() < until:
            turn += 1
            length = _LENGTHS[turn % len(_LENGTHS)]
            prompt = rng.choices(words, k=_PROMPT)
            question = Question(model=model, prompt=prompt, max_tokens=length, key=key)
            url = side.urls[turn % len(side.urls)]
            answers.append((number % adapters, await ask(session, url, question)))

    await asyncio.gather(*(client(number) for number in range(many)))
    if faults := {answer.fault for _, answer in answers if answer.fault}:
        raise RequestsFailed(f"{side.name}: {sorted(faults)}")
    waits = sorted(answer.first - answer.asked for _, answer in answers)
    served = {adapter for adapter, answer in answers if answer.first <= until}
    return {
        "tokens_per_second": round(sum(within(each, began, until) for _, each in answers) / seconds, 1),
        "requests": len(answers),
        "first_ms_p50": round(1000 * statistics.median(waits), 1),
        "first_ms_most": round(1000 * waits[-1], 1),
        "adapters_unserved": adapters - len(served),
    }


def within(answer: Answer, began: float, until: float) -> float:
    """Its tokens that came in that time, as if they came evenly."""
    spent = max(answer.ended - answer.first, 1e-9)
    share = (min(answer.ended, until) - max(answer.first, began)) / spent
    return answer.tokens * max(0.0, min(1.0, share))


def cliff(figures: dict[str, Any], slots: int) -> float:
    """How many times slower the worst number of adapters beyond the slots is than as many as slots."""
    rates = {int(count): found["tokens_per_second"] for count, found in figures.items()}
    return float(rates[slots] / min(rate for count, rate in rates.items() if count > slots))
