"""The bench of the registry: its small registry is a sound one, and its page says what was measured."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.registry import following, population, telling
from bench.registry.page import LIMITS, flat, limit_of, plot, rows
from bench.registry.stores import copied
from bench.registry.timing import Spread, spread
from registry.blobs.memory import InMemoryBlobs
from registry.catalog import feed
from registry.catalog.local.catalog import LocalCatalog
from registry.clock import SystemClock
from registry.feed import encode
from registry.store.database import Database, upgrade
from tests.support.registries import signer

SIZE = population.Size(tenants=4, versions=24, each=2, engines=2, slots_each=2)
RESULTS = Path(__file__).parents[3] / "bench/results"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with Database(tmp_path_factory.mktemp("bench") / "registry.db") as database:
        upgrade(database)
        population.fill(database, SIZE)
        yield database


def test_what_is_filled_is_what_a_registry_would_hold(filled: Database) -> None:
    catalog = LocalCatalog(database=filled, blobs=InMemoryBlobs(), signer=signer("log"), clock=SystemClock())
    assert catalog.verify() == []
    snapshot = catalog.snapshot()
    assert len(snapshot.tenants) == SIZE.tenants
    assert len(snapshot.versions) == SIZE.versions
    assert len(snapshot.keys) == 2 * SIZE.tenants
    assert len(snapshot.slots) == SIZE.engines * SIZE.slots_each
    assert len({version.adapter for version in snapshot.versions}) == SIZE.deep + 1


def test_a_copy_is_the_same_registry(filled: Database, tmp_path: Path) -> None:
    with Database(tmp_path / "copy.db") as copy:
        upgrade(copy)
        copied(filled, copy)
        with filled.read() as one, copy.read() as other:
            assert feed.snapshot(one) == feed.snapshot(other)
            assert list(one.projection()) == list(other.projection())


def test_every_look_of_the_bench_finds_a_version(filled: Database) -> None:
    with filled.read() as read:
        body = encode(feed.snapshot(read))
    tables = following.compiled(body)[2]
    assert tables.faults == ()
    looks = following.looks(tables, SIZE, times=50)
    assert set(looks) == {"resolve", "authenticate and resolve"}
    assert {"key revoked", "version pushed"} <= set(following.changes(tables))
    with filled.read() as read:
        fewer = telling.tenants_first(feed.snapshot(read), 2)
    assert {version.tenant for version in fewer.versions} == {"tenant-00000", "tenant-00001"}


def test_a_spread_is_of_all_samples() -> None:
    assert Spread.of([3, 1, 2]) == Spread(2, 2, 3)
    assert Spread.of(list(range(101))) == Spread(50, 99, 100)
    done: list[int] = []
    spread(done.append, 5)
    assert done == [0, 1, 2, 3, 4]


def test_every_limit_is_of_a_figure_that_was_measured() -> None:
    measured = json.loads((RESULTS / "registry.json").read_text())
    for figures in measured["stores"].values():
        known = flat(figures) | flat({"pushes": measured["pushes"]})
        assert all(any(figure.startswith(start) for figure in known) for start in LIMITS)
    assert limit_of("pages ms.tenants.pages") is None
    assert limit_of("pages ms.tenants.most") == 50
    assert limit_of("delta.bytes") is None


def test_the_picture_is_of_the_results() -> None:
    measured = json.loads((RESULTS / "registry.json").read_text())
    assert (RESULTS / "registry.svg").read_text() == plot(measured)
    table = rows(measured)
    assert len({len(row) for row in table}) == 1
    assert [row[0] for row in table if row[0].startswith("snapshot: MB (")] == ["snapshot: MB (at most 200)"]
