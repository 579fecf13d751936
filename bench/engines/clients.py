"""Clients that ask all the time while something else is done, and what became of every request."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from bench.engines.asking import Answer, Question, ask


@asynccontextmanager
async def connected() -> AsyncIterator[aiohttp.ClientSession]:
    # vLLM closes idle connections after 5 s.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2)) as session:
        yield session


@dataclass
class Asked:
    """Of one load."""

    answers: list[tuple[int, Answer]] = field(default_factory=list)
    """Number of the question, and what came."""
    seconds: float = 0.0


@asynccontextmanager
async def clients(
    session: aiohttp.ClientSession, url: str, count: int, question: Callable[[int], Question]
) -> AsyncIterator[Asked]:
    """``question``: by its number, counted over all clients. What is under way at the end is waited for."""
    found, began, over = Asked(), time.perf_counter(), asyncio.Event()
    number = 0

    async def one() -> None:
        nonlocal number
        while not over.is_set():
            mine, number = number, number + 1
            found.answers.append((mine, await ask(session, url, question(mine))))

    tasks = [asyncio.create_task(one()) for _ in range(count)]
    try:
        yield found
    finally:
        over.set()
        await asyncio.gather(*tasks)
        found.seconds = time.perf_counter() - began
