"""Promotions on two engines while clients ask: how long each takes, and what the clients noticed."""

import asyncio
import bisect
import statistics
import time
from collections.abc import Sequence
from typing import Any

import aiohttp

from bench.engines.asking import Answer, Question, ask
from bench.engines.clients import Asked, clients, connected
from bench.engines.scene import Scene, Served
from bench.engines.truth import TOP, Truth
from registry.digests import Digest
from registry.promotions import Readiness
from server.cli import render
from server.engines.attest import Observation, judge_together, observe
from server.engines.client import VllmClient
from server.mixup.ours import MODEL
from server.mixup.versions import Known

TENANTS = 4
CLIENTS = 6
_TOKENS = 16
_LAG = 5.0
"""Seconds after a move in which a router may still answer with the version before; far more than it takes."""
_ROLLBACKS = 10
COLD = 9
_CHECKS = 20
_PAUSE = 3.0
"""Seconds after which engines have looked at everybody again because of the load before."""


class Lives:
    """When each version was live, as the registry had it: what a client may have been answered by."""

    def __init__(self) -> None:
        self._moves: dict[str, list[tuple[float, str]]] = {}

    def moved(self, tenant: str, version: Digest, at: float) -> None:
        self._moves.setdefault(tenant, []).append((at, str(version)))

    def allowed(self, tenant: str, answer: Answer) -> set[str]:
        """Live at some time between the question and its answer."""
        moves = self._moves[tenant]
        at = [move[0] for move in moves]
        first = max(0, bisect.bisect_right(at, answer.asked - _LAG) - 1)
        return {version for _, version in moves[first : bisect.bisect_right(at, answer.ended)]}


async def measure(found: Scene, served: Served, pending: Sequence[Known]) -> dict[str, Any]:
    """``pending``: versions that no engine has seen, to be promoted one after another."""
    truth = Truth(found.base, found.fingerprints)
    lives = Lives()
    for known in list(found.stack.known.values()):
        if found.stack.live(known.tenant).version == known.version:
            lives.moved(known.tenant, known.version, 0.0)
    async with connected() as session:
        under, cold = pending[:-COLD], pending[-COLD:]
        result: dict[str, Any] = {}
        async with clients(session, served.url, CLIENTS, _questions(found, truth)) as asked:
            render.note(f"{len(under)} promotions while {CLIENTS} clients ask")
            times = []
            for number, known in enumerate(under):
                times.append(await _promote(found, session, served, known, lives, truth))
                if (number + 1) % 10 == 0:
                    render.note(f"{number + 1} of {len(under)}")
            render.note(f"{_ROLLBACKS} times back and forth")
            back, forth = await _back_and_forth(found, session, served, under, lives, truth)
        result |= {
            "promotions": len(under),
            "promotion_ms": _spread([each["moved"] for each in times]),
            "steps_ms": _steps(times),
            "rollback_ms": _spread(back),
            "forward_ms": _spread(forth),
            "load": _judged(found, asked, lives, truth),
        }
        render.note("first tokens of adapters that no engine has")
        colds = []
        for known in cold:
            await asyncio.sleep(_PAUSE)
            colds.append(await _promote(found, session, served, known, lives, truth))
        result["cold_first_token_ms"] = _spread([each["answers"] for each in colds])
        result["cold_steps_ms"] = _steps(colds)
        result["attestation_ms"] = await _attestation(found, served)
    return result


def _questions(found: Scene, truth: Truth) -> Any:
    tenants = sorted(found.keys)

    def question(number: int) -> Question:
        return Question(
            model=MODEL,
            prompt=truth.prompts[number % len(truth.prompts)],
            max_tokens=_TOKENS,
            key=found.keys[_tenant(tenants, number)],
            stream=bool(number & 1),
            logprobs=TOP,
        )

    return question


def _tenant(tenants: Sequence[str], number: int) -> str:
    """Beside prompts and streams, so that every tenant meets all of them."""
    return tenants[number // 7 % len(tenants)]


async def _promote(
    found: Scene,
    session: aiohttp.ClientSession,
    served: Served,
    known: Known,
    lives: Lives,
    truth: Truth,
) -> dict[str, float]:
    """Milliseconds from the wish until each step."""
    began = time.perf_counter()
    steps: dict[str, float] = {}

    def shown(readiness: Readiness) -> None:
        now = 1000 * (time.perf_counter() - began)
        steps.setdefault("prepared", now)
        if readiness.attested:
            steps.setdefault("one engine", now)
        if readiness.ready:
            steps.setdefault("all engines", now)

    await asyncio.to_thread(lambda: found.stack.promote(known, shown=shown))
    steps["moved"] = 1000 * (time.perf_counter() - began)
    lives.moved(known.tenant, known.version, began)
    answer = await _answered(session, served, found.keys[known.tenant], known, truth)
    return steps | {"answers": 1000 * (answer.first - began)}


async def _answered(
    session: aiohttp.ClientSession, served: Served, key: str, known: Known, truth: Truth
) -> Answer:
    """The first answer through the router by this version."""
    question = Question(model=MODEL, prompt=truth.prompts[0], max_tokens=1, key=key)
    for _ in range(1000):
        answer = await ask(session, served.url, question)
        if not answer.fault and answer.version == str(known.version):
            return answer
    raise TimeoutError(f"the router does not answer with {known.version.short}")


async def _back_and_forth(
    found: Scene,
    session: aiohttp.ClientSession,
    served: Served,
    promoted: Sequence[Known],
    lives: Lives,
    truth: Truth,
) -> tuple[list[float], list[float]]:
    """Milliseconds until the router answers: of roll backs, and of promotions of what engines still have."""
    back, forth = [], []
    for number in range(_ROLLBACKS):
        tenant = sorted(found.keys)[number % len(found.keys)]
        mine = [known for known in promoted if known.tenant == tenant]
        was, now = mine[-2], mine[-1]
        began = time.perf_counter()
        await asyncio.to_thread(found.stack.rollback, tenant)
        lives.moved(tenant, was.version, began)
        answer = await _answered(session, served, found.keys[tenant], was, truth)
        back.append(1000 * (answer.first - began))
        forth.append((await _promote(found, session, served, now, lives, truth))["answers"])
    return back, forth


async def _attestation(found: Scene, served: Served) -> dict[str, float]:
    """One look as the agent takes it, of one slot, of eight in turn and at once, while nobody asks."""
    live = [found.stack.live(tenant) for tenant in sorted(found.keys)]
    others = [known for known in reversed(found.stack.known.values()) if known not in live]
    versions = [known.version for known in (*live, *others)][:8]
    ways = {"1": (1, 1), f"{len(versions)}": (1, 8), f"{len(versions)} at once": (8, 8)}
    taken: dict[str, list[float]] = {way: [] for way in ways}
    async with VllmClient(served.engines[0]) as engine:

        async def look(version: Digest, salt: str) -> Observation:
            fingerprint = found.fingerprints[version]
            return await observe(engine, version=version, fingerprint=fingerprint, files=(), salt=salt)

        for turn in range(_CHECKS):
            for way, (together, count) in ways.items():
                began = time.perf_counter()
                seen: list[Observation] = []
                for first in range(0, count, together):
                    some = versions[first : first + together][:count]
                    seen += await asyncio.gather(*(look(each, f"{way}-{turn}-{each.hex}") for each in some))
                judged = judge_together(seen, dtype="float32")
                taken[way].append(1000 * (time.perf_counter() - began))
                assert all(finding.passed for finding in judged.values()), judged
    return {way: round(statistics.median(times), 1) for way, times in taken.items()}


def _judged(found: Scene, asked: Asked, lives: Lives, truth: Truth) -> dict[str, Any]:
    tenants = sorted(found.keys)
    faults: dict[str, int] = {}
    wrong = streams = 0
    for number, answer in asked.answers:
        streams += number & 1
        if answer.fault:
            faults[answer.fault] = faults.get(answer.fault, 0) + 1
        elif answer.version not in lives.allowed(_tenant(tenants, number), answer) or not truth.right(
            answer.version, number % len(truth.prompts), answer.top
        ):
            wrong += 1
    whole = [answer for _, answer in asked.answers if not answer.fault]
    return {
        "clients": CLIENTS,
        "requests": len(asked.answers),
        "streams": streams,
        "failed": sum(faults.values()),
        "wrong": wrong,
        "faults": faults,
        "seconds": round(asked.seconds, 1),
        "longest_ms": round(1000 * max(answer.ended - answer.asked for answer in whole), 1),
        "median_ms": round(1000 * statistics.median(answer.ended - answer.asked for answer in whole), 1),
    }


def _steps(times: Sequence[dict[str, float]]) -> dict[str, float]:
    """Medians of milliseconds from the wish."""
    steps = ("prepared", "one engine", "all engines", "moved", "answers")
    return {step: round(statistics.median(each[step] for each in times), 1) for step in steps}


def _spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 1),
        "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 1),
        "most": round(ordered[-1], 1),
    }
