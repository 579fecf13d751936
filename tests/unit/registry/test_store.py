"""What is SQLite's alone; what every database must do is in ``tests/contract/test_store.py``."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.models import Tenant
from registry.store.database import Database, scratch, upgrade
from registry.store.errors import StoreCorrupt
from tests.support.registries import World


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "registry.db", busy_timeout=0.2) as made:
        upgrade(made)
        yield made


def _tenant(name: str) -> Tenant:
    return Tenant(id=name, display_name=name)


@pytest.mark.parametrize("table", ["entries", "heads"])
@pytest.mark.parametrize("change", ["DELETE FROM {}", "UPDATE {} SET rowid = rowid + 100"])
def test_the_log_only_grows(world: World, table: str, change: str) -> None:
    connection = sqlite3.connect(world.file)
    try:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(change.format(table))
    finally:
        connection.close()


def test_settings_of_every_connection(database: Database) -> None:
    for use, query_only in ((database.read, 1), (database.write, 0)):
        with use() as rows:
            pragma = {
                name: rows._session.connection().exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "foreign_keys", "synchronous", "query_only")
            }
        assert pragma == {
            "journal_mode": "wal",
            "foreign_keys": 1,
            "synchronous": 2,
            "query_only": query_only,
        }


def test_a_changed_policy_is_not_handed_out(world: World) -> None:
    digest = world.policy()
    connection = sqlite3.connect(world.file)
    connection.execute("UPDATE policies SET document = replace(document, '256', '999')")
    connection.commit()
    connection.close()
    for use in (lambda: world.catalog.policy(digest), world.catalog.snapshot):
        with pytest.raises(StoreCorrupt):
            use()


def test_scratch_tables_are_empty_and_apart() -> None:
    with scratch() as one, scratch() as other:
        one.tenants.add(_tenant("bank_a"), entry=0)
        assert list(other.projection()) == []
        assert [(table, key) for table, key, _ in one.projection()] == [("tenants", ("bank_a",))]
