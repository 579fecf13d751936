import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.errors import TenonError
from registry.models import Tenant
from registry.store.database import Database, scratch, upgrade
from registry.store.errors import StoreBusy, StoreConflict, StoreCorrupt
from tests.support.registries import World, route


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "registry.db", busy_timeout=0.2) as made:
        upgrade(made)
        yield made


def _tenant(name: str) -> Tenant:
    return Tenant(id=name, display_name=name)


def test_all_or_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as rows:  # noqa: PT012
        rows.tenants.add(_tenant("bank_a"), entry=0)
        _ = 1 / 0
    with database.read() as rows:
        assert rows.tenants.all() == ()
    with database.write() as rows:
        rows.tenants.add(_tenant("bank_a"), entry=0)
    with database.read() as rows:
        assert rows.tenants.all() == (_tenant("bank_a"),)


def test_a_reader_sees_one_moment_and_does_not_wait(database: Database) -> None:
    with database.read() as before:
        assert before.tenants.all() == ()
        with database.write() as rows:
            rows.tenants.add(_tenant("bank_a"), entry=0)
        assert before.tenants.all() == ()
    with database.read() as after:
        assert after.tenants.has("bank_a")


def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(TenonError), database.read() as rows:
        rows.tenants.add(_tenant("bank_a"), entry=0)


def test_a_second_writer_waits_and_then_says_so(database: Database, tmp_path: Path) -> None:
    impatient = Database(tmp_path / "registry.db", busy_timeout=0.05)
    with impatient as other, database.write(), pytest.raises(StoreBusy), other.write():
        pass
    with pytest.raises(StoreBusy), database.write(), database.write():
        pass  # the same process: refused by the pool instead of a deadlock


def test_writers_queue(database: Database, tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with database.write() as rows:
            rows.tenants.add(_tenant("first"), entry=0)
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(10)
    with Database(tmp_path / "registry.db", busy_timeout=10) as other:
        threading.Timer(0.05, leave.set).start()
        with other.write() as rows:  # BEGIN IMMEDIATE: it begins after the first has committed
            assert rows.tenants.has("first")
    thread.join()


def test_foreign_keys_hold(database: Database) -> None:
    with pytest.raises(StoreConflict), database.write() as rows:
        rows.routes.replace("nobody", [route(Digest.of(b"no policy"))], entry=0)


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
