"""What every source of discovery promises: the one in memory, a list in a file, and Kubernetes."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from server.api.expected import Discovery
from server.engines.discovery.sighting import Address, Listed
from server.engines.discovery.static import StaticList
from server.testing.fake_discovery import InMemoryDiscovery
from server.testing.fake_kubernetes import endpoint
from tests.support.clusters import Cluster, cluster, until

HOSTS = dict[str, str]


class Writer(Protocol):
    async def __call__(self, hosts: HOSTS) -> None: ...


@dataclass
class Source:
    discovery: Discovery
    write: Writer
    """These engines at these hosts, port 8411, and no others."""

    async def until(self, names: set[str]) -> dict[str, Listed]:
        await until(lambda: set(self.discovery.look().engines) == names)
        return dict(self.discovery.look().engines)


@contextlib.asynccontextmanager
async def _memory(_: Path) -> AsyncIterator[Source]:
    discovery = InMemoryDiscovery({})

    async def write(hosts: HOSTS) -> None:
        discovery.engines = {
            name: Listed(addresses=frozenset({Address(host, 8411)})) for name, host in hosts.items()
        }

    yield Source(discovery, write)


@contextlib.asynccontextmanager
async def _file(folder: Path) -> AsyncIterator[Source]:
    file = folder / "engines.yaml"

    async def write(hosts: HOSTS) -> None:
        engines = [{"name": name, "url": f"http://{host}:8411"} for name, host in hosts.items()]
        file.write_text(json.dumps({"kind": "tenon.engines/v1", "engines": engines}))

    await write({})
    yield Source(StaticList(file), write)


@contextlib.asynccontextmanager
async def _kubernetes(folder: Path) -> AsyncIterator[Source]:
    async with cluster(folder) as made:

        async def write(hosts: HOSTS) -> None:
            await made.api.put("slice", *(endpoint(name, host) for name, host in hosts.items()))

        await _heard(made)
        yield Source(made.source, write)


async def _heard(made: Cluster) -> None:
    await made.until(lambda: made.source.look().heard is not None)


OPEN: dict[str, Callable[[Path], contextlib.AbstractAsyncContextManager[Source]]] = {
    "memory": _memory,
    "file": _file,
    "kubernetes": _kubernetes,
}


@pytest.fixture(params=OPEN)
async def source(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Source]:
    async with OPEN[request.param](tmp_path) as made:
        yield made


async def test_a_source_that_was_heard_may_list_nobody(source: Source) -> None:
    seen = source.discovery.look()
    assert seen.heard is not None
    assert dict(seen.engines) == {}


async def test_engines_are_listed_with_where_they_are(source: Source) -> None:
    await source.write({"engine-0": "10.1.0.5"})
    found = await source.until({"engine-0"})
    assert found["engine-0"].addresses == frozenset({Address.of("http://10.1.0.5:8411")})
    assert not found["engine-0"].ending


async def test_who_comes_moves_and_goes_is_seen_without_a_restart(source: Source) -> None:
    await source.write({"engine-0": "10.1.0.5", "engine-1": "10.1.0.6"})
    await source.until({"engine-0", "engine-1"})
    await source.write({"engine-1": "10.1.0.9", "engine-2": "10.1.0.7"})
    found = await source.until({"engine-1", "engine-2"})
    assert found["engine-1"].addresses == frozenset({Address("10.1.0.9", 8411)})


async def test_the_last_word_gets_no_younger_than_it_is_and_never_older(source: Source) -> None:
    await source.write({"engine-0": "10.1.0.5"})
    await source.until({"engine-0"})
    first = source.discovery.look().heard
    await source.write({"engine-1": "10.1.0.5"})
    await source.until({"engine-1"})
    second = source.discovery.look().heard
    assert first is not None
    assert second is not None
    assert second >= first


async def test_a_look_belongs_to_its_moment(source: Source) -> None:
    await source.write({"engine-0": "10.1.0.5"})
    await source.until({"engine-0"})
    before = source.discovery.look()
    await source.write({})
    await source.until(set())
    assert set(before.engines) == {"engine-0"}
