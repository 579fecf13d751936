"""Tokens a second of one busy vLLM, asked through the router and directly: what the router takes of them.

On halves of the machine: the engine has one to itself, router and clients share the other, in both kinds of
run. On shared cores the ratio would say what the engine's cores lose to whoever talks to it. Runs take turns,
so that what else the machine does falls on both. Where it does much, only tokens for each second of the
engine's own processor time say anything: what an engine that has its cores to itself makes of a second.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from bench.engines.adapters import within
from bench.engines.asking import Answer, Question, ask
from bench.engines.clients import connected
from bench.engines.scene import Scene, Served
from bench.router.load import RequestsFailed
from registry.names import engine_name
from server.cli import render
from server.mixup.ours import MODEL

TENANTS = 4
"""As many as slots: nobody waits in either kind of run."""
CLIENTS = 32
_TOKENS = 48
_ROUNDS = 5
_WARM = 1.0
"""Seconds before any token is counted."""
_TICKS = os.sysconf("SC_CLK_TCK")


def halves() -> tuple[set[int], set[int]]:
    """Cores for the engine, and for all others."""
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    return (set(cores[:half]), set(cores[half:])) if half else (set(cores), set(cores))


def move(pid: int, cores: set[int]) -> None:
    """All threads; what it starts later follows."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # a thread that has ended since
            os.sched_setaffinity(int(task.name), cores)


async def measure(found: Scene, served: Served, seconds: float) -> dict[str, Any]:
    fingerprint = next(iter(found.fingerprints.values()))
    prompts = [probe.token_ids for probe in fingerprint.probes if probe.kind == "random"]
    tenants = sorted(found.keys)
    voices: dict[str, list[tuple[str, str | None]]] = {
        "direct": [(engine_name(found.stack.live(tenant).version), None) for tenant in tenants],
        "router": [(MODEL, found.keys[tenant]) for tenant in tenants],
    }
    urls = {"direct": served.engines[0], "router": served.url}
    router, agent = served.processes["router"], served.processes["engine"]
    kinds = {"stream": True, "whole": False}
    runs: dict[str, dict[str, list[dict[str, float]]]] = {kind: {} for kind in kinds}
    async with connected() as session:
        for turn in range(_ROUNDS + 1):
            for kind, stream in kinds.items():
                # Whoever comes second always would be after the other's heat.
                for side in sorted(urls, reverse=bool(turn & 1)):
                    asking = Asking(urls[side], voices[side], prompts, stream, seconds)
                    run = await _run(session, asking, router, agent)
                    if turn:
                        runs[kind].setdefault(side, []).append(run)
            render.note(f"round {turn} of {_ROUNDS}")
    return {"clients": CLIENTS, "tokens": _TOKENS, "rounds": _ROUNDS, "seconds": seconds} | {
        kind: _compared(sides) for kind, sides in runs.items()
    }


@dataclass(frozen=True, slots=True)
class Asking:
    url: str
    voices: Sequence[tuple[str, str | None]]
    """The model's name, the key."""
    prompts: Sequence[Sequence[int]]
    stream: bool
    seconds: float


async def _run(session: aiohttp.ClientSession, asking: Asking, router: int, agent: int) -> dict[str, float]:
    voices, prompts, stream = asking.voices, asking.prompts, asking.stream
    began = time.perf_counter() + _WARM
    until = began + asking.seconds
    answers: list[Answer] = []

    async def client(number: int) -> None:
        model, key = voices[number % len(voices)]
        turn = number
        while time.perf_counter() < until:
            turn += 1
            question = Question(
                model=model, prompt=prompts[turn % len(prompts)], max_tokens=_TOKENS, key=key, stream=stream
            )
            answers.append(await ask(session, asking.url, question))

    engine = _below(agent)
    of_engine = sum(map(_processor, engine))
    of_router, of_clients, started = _processor(router), time.process_time(), time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    took = time.perf_counter() - started
    of_router, of_clients = _processor(router) - of_router, time.process_time() - of_clients
    of_engine = sum(map(_processor, engine)) - of_engine
    if faults := {answer.fault for answer in answers if answer.fault}:
        raise RequestsFailed(f"{asking.url}: {sorted(faults)}")
    made = sum(answer.tokens for answer in answers)
    return {
        "tokens_per_second": sum(within(_made(answer, stream), began, until) for answer in answers)
        / asking.seconds,
        "tokens_per_engine_second": made / of_engine,
        "router_us_per_token": of_router / made * 1e6,
        "router_us_per_request": of_router / len(answers) * 1e6,
        "their_half_busy": (of_router + of_clients) / took,
        "first_ms_p50": 1000 * statistics.median(answer.first - answer.asked for answer in answers),
    }


def _made(answer: Answer, stream: bool) -> Answer:
    """A whole answer comes at once, and was made all the time."""
    return answer if stream else replace(answer, first=answer.asked)


def _processor(pid: int) -> float:
    """Seconds, the system's for it included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _below(pid: int) -> list[int]:
    """All processes that come from it."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(
                int(stat.parent.name)
            )
    found = list(parents.get(pid, ()))
    for each in found:  # grows meanwhile
        found += parents.get(each, ())
    return found


def _compared(sides: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Medians, of ratios too: of each round's two neighbours, so that what changes with time is not in it."""

    def of(figure: str, side: str, digits: int) -> float:
        return round(statistics.median(run[figure] for run in sides[side]), digits)

    def ratios(figure: str) -> list[float]:
        return [
            round(ours[figure] / direct[figure], 3)
            for ours, direct in zip(sides["router"], sides["direct"], strict=True)
        ]

    both = {"tokens_per_second": 1, "tokens_per_engine_second": 1, "first_ms_p50": 1, "their_half_busy": 2}
    return {
        "ratio": round(statistics.median(ratios("tokens_per_second")), 3),
        "ratios": ratios("tokens_per_second"),
        "ratio_engine": round(statistics.median(ratios("tokens_per_engine_second")), 3),
        "ratios_engine": ratios("tokens_per_engine_second"),
        **{figure: {side: of(figure, side, digits) for side in sides} for figure, digits in both.items()},
        **{figure: of(figure, "router", 1) for figure in ("router_us_per_token", "router_us_per_request")},
    }
