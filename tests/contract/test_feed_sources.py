"""What routers and engines may rely on, whoever tells them: two fakes and the real thing over HTTP."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry.feed import Delta, Snapshot, State
from registry.models import Tenant
from router.ports import FeedSource
from router.testing import FakeFeed, Scene
from server.api.client import ControlClient
from server.testing.control_plane import InMemoryControlPlane
from tests.support.adapters import tiny_base, write_adapter
from tests.support.registries import signer
from tests.support.remote import SERVICE_TOKEN, remote


@dataclass
class Told:
    source: FeedSource
    change: Callable[[], Awaitable[None]]
    """Something new, whatever it is."""


@contextlib.asynccontextmanager
async def _fake(folder: Path) -> AsyncIterator[Told]:
    scene, feed = Scene(), FakeFeed()
    scene.engine()
    scene.serve("bank_a")
    feed.publish(scene.snapshot())

    async def change() -> None:
        scene.key("bank_a")
        feed.publish(scene.snapshot())

    yield Told(feed, change)


@contextlib.asynccontextmanager
async def _memory(folder: Path) -> AsyncIterator[Told]:
    base, _ = tiny_base()
    control = InMemoryControlPlane(base=base, trust=signer("engine").public)
    seeds = iter(range(100))

    async def change() -> None:
        seed = next(seeds)
        control.point(control.publish(write_adapter(folder / f"a{seed}", base, seed=seed), tenant="bank_a"))

    await change()
    yield Told(control, change)


@contextlib.asynccontextmanager
async def _http(folder: Path) -> AsyncIterator[Told]:
    numbers = iter(range(100))
    with remote(folder) as served:
        catalog = served.world.catalog

        async def change() -> None:
            tenant = Tenant(id=f"t{next(numbers)}", display_name="T")
            await asyncio.to_thread(catalog.create_tenant, tenant, actor="test")

        async with ControlClient(served.url, SERVICE_TOKEN) as client:
            yield Told(client, change)


SOURCES = {"fake": _fake, "memory": _memory, "http": _http}


@pytest.fixture(params=SOURCES)
async def told(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Told]:
    async with SOURCES[request.param](tmp_path) as made:
        yield made


async def everything(told: Told) -> Snapshot:
    news = await told.source.read(None, 5)
    assert isinstance(news, Snapshot)
    return news


async def test_everything_first_and_then_what_changed(told: Told) -> None:
    start = await everything(told)
    assert await told.source.read(start.position, 0.05) is None
    await told.change()
    delta = await told.source.read(start.position, 5)
    assert isinstance(delta, Delta)
    state = State.of(start).after(delta)
    assert state.snapshot() == await everything(told)
    assert await told.source.read(state.position, 0.05) is None


async def test_who_was_away_for_several_changes_misses_none(told: Told) -> None:
    start = await everything(told)
    for _ in range(3):
        await told.change()
    news = await told.source.read(start.position, 5)
    assert isinstance(news, Delta)
    assert State.of(start).after(news).snapshot() == await everything(told)


async def test_who_waits_hears_of_a_change_at_once(told: Told) -> None:
    start = await everything(told)
    waiting = asyncio.create_task(told.source.read(start.position, 20))
    await asyncio.sleep(0.2)  # long enough that it waits, and not just has not begun
    assert not waiting.done()
    await told.change()
    began = time.perf_counter()
    assert await waiting is not None
    # 0.1 s is what is promised (bench/registry measures it); a busy machine gets ten times that.
    assert time.perf_counter() - began < 1
