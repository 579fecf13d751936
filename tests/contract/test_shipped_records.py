"""What may be relied on when records are shipped into a registry: on each database, and over HTTP."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry.catalog.errors import RecordsInvalid, RecordsMissing
from registry.errors import TenonError
from registry.shipping import RecordBatch
from registry.store.port import Store
from server.api.app import create_app
from server.errors import ControlRefused
from server.shipping.registry import Catalog, OverHttp, Registry
from server.shipping.ship import ship
from tests.support.chains import grow
from tests.support.control import SERVICE_TOKEN, control_world
from tests.support.postgres import PostgresServer
from tests.support.registries import World, open_world
from tests.support.remote import serving
from tests.support.stores import fresh

TENANTS = ["bank_a", None, "retail_b", "bank_a", "bank_a"]


@dataclass
class Shipment:
    catalog: Catalog
    world: World
    folder: Path
    refusal: type[TenonError] | tuple[type[TenonError], ...]

    def grow(self, count: int, *, more: int = 0) -> list[bytes]:
        tenants = [TENANTS[number % len(TENANTS)] for number in range(count)]
        return grow(self.folder, tenants, self.world.catalog, more=more)

    def ship(self, batch: int = 3) -> int:
        return ship(self.folder, Registry(self.catalog), batch=batch)

    @property
    def store(self) -> Store:
        return self.world.database

    def stored(self, count: int) -> list[str | None]:
        with self.store.read() as rows:
            found = [rows.shipped.get("w", seq) for seq in range(count)]
            assert rows.shipped.get("w", count) is None
        return [each.line if each else None for each in found]

    def send(self, first: int, *lines: bytes) -> int:
        batch = RecordBatch(writer="w", first=first, lines=tuple(line.decode() for line in lines))
        return self.catalog.ship_records(batch).next


@contextlib.contextmanager
def _shipment(kind: str, folder: Path, server: Callable[[], PostgresServer]) -> Iterator[Shipment]:
    chain = folder / "records" / "w"
    if kind == "http":
        with (
            control_world(folder) as bench,
            serving(create_app(bench.control)) as url,
            OverHttp(url, SERVICE_TOKEN) as catalog,
        ):
            yield Shipment(catalog, bench.world, chain, ControlRefused)
        return
    with fresh(kind, folder, server) as address:
        world = open_world(folder, store=address)
        try:
            yield Shipment(world.catalog, world, chain, (RecordsInvalid, RecordsMissing))
        finally:
            world.database.close()


@pytest.fixture(params=("sqlite", "postgresql", "http"))
def shipment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shipment]:
    with _shipment(request.param, tmp_path, lambda: request.getfixturevalue("postgres")) as found:
        yield found


def test_each_record_under_a_head_once(shipment: Shipment) -> None:
    lines = [line.decode() for line in shipment.grow(8, more=2)]
    assert shipment.ship() == 8
    assert shipment.ship() == 0
    assert shipment.stored(8) == lines[:8]
    lines = [line.decode() for line in shipment.grow(5)]
    assert shipment.ship() == 7
    assert shipment.stored(15) == lines
    assert shipment.catalog.records_stored("w").next == 15
    assert shipment.catalog.records_stored("nobody").next == 0
    local = shipment.world.catalog
    assert local.shipped_writers() == ("w",)
    assert local.shipped_lines("w", 3, 4) == tuple(lines[3:7])
    assert local.shipped_lines("w", 15, 4) == ()


def test_a_batch_whose_answer_was_lost_counts_once(shipment: Shipment) -> None:
    lines = shipment.grow(6)
    assert shipment.send(0, *lines[:4]) == 4
    assert shipment.send(0, *lines[:4]) == 4
    assert shipment.send(2, *lines[2:6]) == 6
    assert shipment.stored(6) == [line.decode() for line in lines]


def test_what_is_no_continuation_is_refused_whole(shipment: Shipment) -> None:
    lines = shipment.grow(6, more=1)
    forged = lines[2].replace(b"retail_b", b"bank_a!!")
    cases: list[tuple[int, list[bytes]]] = [
        (1, lines[1:3]),  # the first is missing
        (0, [lines[0], lines[2]]),
        (0, [lines[0], b"{}"]),
        (0, [lines[0] + b" "]),
        (0, [lines[0], lines[1], forged, lines[3]]),  # what follows names another digest
        (5, lines[5:]),
        (0, lines),  # the last is under no head
        (0, [*lines[:5], lines[5].replace(b"bank_a", b"bank_b")]),  # the head signs another
    ]
    for first, sent in cases:
        with pytest.raises(shipment.refusal):
            shipment.send(first, *sent)
        assert shipment.stored(0) == []
    assert shipment.send(0, *lines[:3]) == 3
    with pytest.raises(shipment.refusal):
        shipment.send(0, lines[0], lines[1], forged)  # another than the one that is there
    with pytest.raises(shipment.refusal):
        shipment.send(4, *lines[4:6])
    assert shipment.send(3, *lines[3:6]) == 6


def test_a_tenant_sees_its_own_only(tmp_path: Path, postgres: PostgresServer) -> None:
    with _shipment("postgresql", tmp_path, lambda: postgres) as shipment:
        shipment.grow(5)
        shipment.ship()
        with shipment.store.within("retail_b").read() as rows:
            assert [seq for seq in range(5) if rows.shipped.get("w", seq)] == [2]
