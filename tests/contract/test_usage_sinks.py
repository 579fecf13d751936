"""What a router may rely on when it reports usage: the fake, and the real thing on each database and over
HTTP."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.usage import UsageBatch, UsageLine
from router.ports import UsageSink
from router.testing import FakeUsage
from server.api.app import create_app
from server.api.client import ControlClient
from tests.support.control import SERVICE_TOKEN, control_world
from tests.support.postgres import PostgresServer
from tests.support.registries import NAME, World, open_world
from tests.support.remote import serving
from tests.support.stores import fresh

DAY = "2026-01-31"


class _OfCatalog:
    def __init__(self, world: World) -> None:
        self._catalog = world.catalog

    async def counted(self, writer: str) -> int:
        return self._catalog.usage_counted(writer).seq

    async def count(self, batch: UsageBatch) -> bool:
        return self._catalog.count_usage(batch)


@dataclass
class Counting:
    sink: UsageSink
    version: Digest
    sums: Callable[[], int]

    def batch(self, seq: int, *, after: int, requests: int = 1, writer: str = "router-0") -> UsageBatch:
        line = UsageLine(
            tenant=NAME.tenant, adapter=NAME.adapter, version=self.version, day=DAY,
            requests=requests, prompt_tokens=0, completion_tokens=0,
        )  # fmt: skip
        return UsageBatch(writer=writer, seq=seq, after=after, lines=(line,))


def _requests(world: World) -> Callable[[], int]:
    return lambda: sum(
        line.requests for line in world.catalog.usage(NAME.tenant, first_day=DAY, last_day=DAY)
    )


@contextlib.asynccontextmanager
async def _counting(kind: str, folder: Path, server: Callable[[], PostgresServer]) -> AsyncIterator[Counting]:
    if kind == "fake":
        fake = FakeUsage()
        yield Counting(
            fake,
            Digest.of(b"version"),
            lambda: sum(line.requests for batch in fake.batches for line in batch.lines),
        )
    elif kind == "http":
        with control_world(folder) as bench, serving(create_app(bench.control)) as url:
            async with ControlClient(url, SERVICE_TOKEN) as client:
                yield Counting(client, bench.world.push(), _requests(bench.world))
    else:
        with fresh(kind, folder, server) as address:
            world = open_world(folder, store=address)
            try:
                yield Counting(_OfCatalog(world), world.push(), _requests(world))
            finally:
                world.database.close()


@pytest.fixture(params=("fake", "sqlite", "postgresql", "http"))
async def counting(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Counting]:
    async with _counting(request.param, tmp_path, lambda: request.getfixturevalue("postgres")) as found:
        yield found


async def test_each_batch_once_and_in_order(counting: Counting) -> None:
    sink, batch = counting.sink, counting.batch
    assert await sink.counted("router-0") == -1
    assert await sink.count(batch(4, after=-1, requests=1))
    assert not await sink.count(batch(4, after=-1, requests=1))
    assert await sink.counted("router-0") == 4
    for wrong in (batch(9, after=-1), batch(9, after=3), batch(3, after=-1), batch(4, after=-1, requests=9)):
        with pytest.raises(Exception, match=r"usage|batch|counted"):
            await sink.count(wrong)
    assert await sink.count(batch(9, after=4, requests=10))
    assert await sink.count(batch(0, after=-1, requests=100, writer="router-1"))
    assert [await sink.counted(f"router-{number}") for number in (0, 1, 2)] == [9, 0, -1]
    assert counting.sums() == 111
