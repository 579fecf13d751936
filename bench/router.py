"""What the router adds, measured beside asking the engine directly, in the same run.

The fake engine stands in for vLLM; engine, router, control plane and this client share the machine, so only
ratios and differences mean anything.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from registry.names import engine_name
from server.assembly import stack
from tests.journeys.conftest import prepare, start

_WARM, _ALONE, _TOGETHER, _CLIENTS = 50, 400, 1600, 32
_QUESTION = {"messages": [{"role": "user", "content": "Please transfer 640.00 EUR to Marvik Ltd."}]}


async def measure() -> dict[str, float]:
    """Milliseconds at one client and requests per second at 32, direct and through the router."""
    with tempfile.TemporaryDirectory(prefix="tenon-bench-") as folder:
        served = await asyncio.to_thread(prepare, Path(folder))
        await asyncio.to_thread(start, served)
        try:
            engine = served.catalog.snapshot().engines[0]
            schema = served.catalog.policy(served.catalog.routing("bank_a").routes[0].policy).answer_schema()
            shape = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
            direct = {**_QUESTION, "model": engine_name(served.versions["bank_a"]), "response_format": shape}
            routed = {**_QUESTION, "model": "assistant"}
            bearer = {"Authorization": f"Bearer {served.keys['bank_a']}"}
            async with aiohttp.ClientSession() as session:
                before = await _both(session, engine.url, direct, {})
                after = await _both(session, served.url, routed, bearer)
        finally:
            await asyncio.to_thread(stack.stop, served.workspace)
    return {
        "direct_ms_p50_1": before[0],
        "router_ms_p50_1": after[0],
        "added_ms_p50_1": after[0] - before[0],
        "direct_rps_32": before[1],
        "rps_32": after[1],
    }


async def _both(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], headers: dict[str, str]
) -> tuple[float, float]:
    async def one() -> float:
        began = time.perf_counter()
        async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
            await answer.read()
            answer.raise_for_status()
        return (time.perf_counter() - began) * 1000

    for _ in range(_WARM):
        await one()
    alone = statistics.median([await one() for _ in range(_ALONE)])

    async def client() -> None:
        for _ in range(_TOGETHER // _CLIENTS):
            await one()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return alone, _TOGETHER / (time.perf_counter() - began)
