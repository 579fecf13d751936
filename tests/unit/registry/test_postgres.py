"""What is PostgreSQL's alone: its settings, its errors as ours, and a server that ends in the middle."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from registry.errors import InvalidInput, TenonError, WorkspaceNotFound
from registry.models import Tenant
from registry.store import postgres as module
from registry.store.database import upgrade
from registry.store.errors import (
    SchemaOutdated,
    StoreBusy,
    StoreConflict,
    StoreCorrupt,
    StoreUnavailable,
    StoreUnsuitable,
)
from registry.store.postgres import PostgresDatabase
from registry.store.transaction import Transaction
from tests.support.postgres import ROLE, ROOT, SUPERUSER, PostgresServer, running
from tests.support.registries import GATE, NAME, open_world

GUIDE = ROOT / "docs" / "guides" / "storage.md"


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as made:
        yield made


@pytest.fixture
def database(url: str) -> Iterator[PostgresDatabase]:
    with PostgresDatabase(url, busy_timeout=5) as made:
        yield made


def _ask(rows: Transaction, statement: str) -> object:
    return rows._session.connection().exec_driver_sql(statement).scalar()


def _do(rows: Transaction, statement: str) -> None:
    rows._session.connection().exec_driver_sql(statement)


def _tenant(name: str) -> Tenant:
    return Tenant(id=name, display_name=name)


def _name(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


def test_settings_of_every_transaction(database: PostgresDatabase) -> None:
    for use, read_only in ((database.read, "on"), (database.write, "off")):
        with use() as rows:
            assert _ask(rows, "SHOW transaction_isolation") == "repeatable read"
            assert _ask(rows, "SHOW transaction_read_only") == read_only
            assert _ask(rows, "SHOW lock_timeout") == "5s"
            assert _ask(rows, "SHOW statement_timeout") == "1min"
            assert _ask(rows, "SHOW tenon.scope") == "*"
    with database.write() as rows:
        assert _ask(rows, "SHOW synchronous_commit") == "on"
        assert _ask(rows, "SHOW idle_in_transaction_session_timeout") == "1min"


def test_no_setting_outlives_its_transaction(database: PostgresDatabase) -> None:
    """Connections are used again: what was one caller's scope must not be the next one's."""
    with database.within("bank_a").write() as rows:
        assert _ask(rows, "SHOW tenon.scope") == "bank_a"
        session = rows._session
    with session.get_bind().engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT current_setting('tenon.scope', true)").scalar() == ""
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "0"


@pytest.mark.parametrize("option", ["SUPERUSER", "BYPASSRLS"])
def test_a_role_that_no_wall_stops_is_refused(postgres: PostgresServer, url: str, option: str) -> None:
    with postgres.admin() as admin:
        admin.execute(SQL("CREATE ROLE passes LOGIN {}").format(SQL(option)))
        admin.execute(SQL("GRANT {} TO passes").format(Identifier(ROLE)))
    try:
        other = postgres.url(_name(url), role="passes")
        with PostgresDatabase(other) as database, pytest.raises(StoreUnsuitable) as refused:
            database.check()
        assert "entries" in refused.value.message
        assert "BYPASSRLS" in refused.value.advice
    finally:
        with postgres.admin() as admin:
            admin.execute("DROP ROLE passes")


@pytest.mark.parametrize("change", ["DISABLE ROW LEVEL SECURITY", "NO FORCE ROW LEVEL SECURITY"])
def test_a_table_whose_wall_is_down_is_refused(database: PostgresDatabase, url: str, change: str) -> None:
    database.check()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SQL("ALTER TABLE versions {}").format(SQL(change)))
    with pytest.raises(StoreUnsuitable, match=r"\(tables: versions\)"):
        database.check()
    with database.read() as rows:
        assert rows.integrity() == ("row-level security does not bind this role: versions",)


def test_a_database_that_cannot_hold_every_letter_is_refused(postgres: PostgresServer) -> None:
    with postgres.admin() as admin:
        made = "CREATE DATABASE latin OWNER {} TEMPLATE template0 ENCODING LATIN1"
        made += " LOCALE_PROVIDER libc LOCALE 'C'"
        admin.execute(SQL(made).format(Identifier(ROLE)))
    try:
        with PostgresDatabase(postgres.url("latin")) as database:
            upgrade(database)
            with pytest.raises(StoreUnsuitable, match="LATIN1"):
                database.check()
    finally:
        with postgres.admin() as admin:
            admin.execute("DROP DATABASE latin WITH (FORCE)")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "registry.db",
        "mysql://a:hunter2@b/c",
        "postgresql://a:hunter2@b/",
        "postgresql://a:hunter2@b/c?x=1",
    ],
)
def test_what_is_no_url_is_not_repeated(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        PostgresDatabase(url)
    assert "hunter2" not in str(refused.value) + refused.value.advice


def test_a_database_that_is_not_there(postgres: PostgresServer) -> None:
    with PostgresDatabase(postgres.url("nothing")) as database:
        for use in (database.check, lambda: upgrade(database)):
            with pytest.raises(WorkspaceNotFound):
                use()


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    address = f"postgresql://tenon:hunter2@/tenon?host={tmp_path}"
    with PostgresDatabase(address) as database, pytest.raises(StoreUnavailable) as refused:
        database.check()
    assert "hunter2" not in refused.value.message + refused.value.advice


def test_a_database_without_tables(postgres: PostgresServer) -> None:
    with postgres.database(migrated=False) as url, PostgresDatabase(url) as database:
        for use in (database.read, database.write):
            with pytest.raises(SchemaOutdated, match=r"none|no tables"), use():
                pass


def _raised(code: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION 'hunter2' USING ERRCODE = '{code}'; END $$"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("53100", StoreUnavailable),  # disk_full
        ("53200", StoreUnavailable),  # out_of_memory
        ("57P01", StoreUnavailable),  # admin_shutdown
        ("58030", StoreUnavailable),  # io_error
        ("42501", StoreUnavailable),  # insufficient_privilege
        ("40001", StoreBusy),  # serialization_failure
        ("40P01", StoreBusy),  # deadlock_detected
        ("57014", StoreBusy),  # query_canceled
        ("23514", StoreConflict),  # check_violation
        ("XX001", StoreCorrupt),  # data_corrupted
        ("XX002", StoreCorrupt),  # index_corrupted
        ("22003", InvalidInput),  # numeric_value_out_of_range
    ],
)
def test_every_trouble_has_its_code(database: PostgresDatabase, code: str, error: type[TenonError]) -> None:
    with pytest.raises(error), database.write() as rows:  # noqa: PT012
        rows.tenants.add(_tenant("bank_a"), entry=0)
        _do(rows, _raised(code))
    with database.read() as rows:
        assert rows.tenants.all() == ()


def test_a_text_that_postgresql_cannot_hold(database: PostgresDatabase) -> None:
    with pytest.raises(InvalidInput, match="NUL"), database.write() as rows:
        rows.tenants.add(Tenant.model_construct(id="bank_a", display_name="a\0b"), entry=0)


def test_a_statement_without_end(database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STATEMENT_LIMIT", 0.05)
    with pytest.raises(StoreBusy, match="too long"), database.read() as rows:
        _ask(rows, "SELECT pg_sleep(60)")


def test_a_writer_that_hangs_does_not_stop_the_others(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_LIMIT", 0.05)
    with pytest.raises(StoreUnavailable), database.write() as hung:  # noqa: PT012
        hung.tenants.add(_tenant("hung"), entry=0)
        with database.write() as rows:  # waits for the lock until the server takes it away
            rows.tenants.add(_tenant("bank_a"), entry=0)
        hung.tenants.all()
    with database.read() as rows:
        assert [tenant.id for tenant in rows.tenants.all()] == ["bank_a"]


def test_connections_that_the_server_cut_are_made_anew(
    database: PostgresDatabase, postgres: PostgresServer, url: str
) -> None:
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    with database.read(), database.read():
        pass
    with postgres.admin() as admin:
        admin.execute(cut, [_name(url)])
        with database.read() as rows:
            assert rows.tenants.all() == ()
        with pytest.raises(StoreUnavailable), database.write() as rows:  # noqa: PT012
            rows.tenants.add(_tenant("lost"), entry=0)
            admin.execute(cut, [_name(url)])
            rows.tenants.all()
    with database.write() as rows:
        assert rows.tenants.all() == ()


def test_a_server_that_crashes_and_comes_back(tmp_path: Path) -> None:
    """In the middle of a promotion: a clear error, and then everything as it was before."""
    with running() as server, server.database() as url:
        world = open_world(tmp_path, store=url)
        first, second = world.promoted(seed=1), world.evaluated(seed=2)
        before = world.catalog.snapshot()
        database = world.database
        with pytest.raises(StoreUnavailable) as lost, database.write() as rows:  # noqa: PT012
            rows.tenants.add(_tenant("lost"), entry=0)
            server.crash()
            rows.tenants.all()
        assert "whether the change was made" in lost.value.advice
        for use in (database.check, lambda: world.catalog.promote(NAME, second, gate=GATE, actor="test")):
            with pytest.raises(StoreUnavailable):
                use()
        server.restart()
        assert world.catalog.snapshot() == before
        assert world.catalog.verify() == []
        assert world.catalog.alias(NAME).version == first
        world.catalog.promote(NAME, second, gate=GATE, actor="test")
        assert world.catalog.verify() == []
        database.close()


def test_what_a_superuser_changed_is_named(postgres: PostgresServer, url: str, tmp_path: Path) -> None:
    """No wall and no trigger stops one; the log's hashes and the replay tell."""
    world = open_world(tmp_path, store=url)
    world.promoted()
    last = world.catalog.snapshot().size - 1
    with postgres.admin(_name(url)) as admin:
        admin.execute("UPDATE tenants SET display_name = 'x' WHERE id = 'retail_b'")
        admin.execute("ALTER TABLE entries DISABLE TRIGGER USER")
        admin.execute("UPDATE entries SET actor = 'nobody' WHERE position = %s", [last])
    faults = {fault.where: fault.what for fault in world.catalog.verify()}
    assert f"entry {last}" in faults
    assert any("tenants retail_b" in what for what in faults.values())
    assert "entries_no_update" in faults["database file"]
    world.database.close()


@pytest.mark.parametrize("table", ["entries", "heads"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET {} = {}", "TRUNCATE {}"])
def test_the_log_only_grows_even_for_its_owner(url: str, table: str, statement: str) -> None:
    column = {"entries": "position", "heads": "size"}[table]
    words = (Identifier(table), Identifier(column), Identifier(column))[: statement.count("{}")]
    with (
        psycopg.connect(url) as connection,
        pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="append-only"),
    ):
        connection.execute(SQL(statement).format(*words))  # no scope is set: it would see no row


def test_what_keeps_the_log_is_missed(database: PostgresDatabase, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE entries DISABLE TRIGGER entries_no_update")
        connection.execute("DROP TRIGGER heads_no_truncate ON heads")
    with database.read() as rows:
        assert [line.rsplit(": ")[1] for line in rows.integrity()] == [
            "entries_no_update",
            "heads_no_truncate",
        ]


def test_a_migration_waits_for_who_is_reading(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that began before a table was rewritten would find it empty."""
    monkeypatch.setattr(module, "MIGRATION_TIMEOUT", 0.05)
    with database.read() as rows:
        with pytest.raises(StoreBusy):
            database.migrate("base")
        assert rows.tenants.all() == ()
    database.migrate("base")


def test_two_roles_as_the_guide_makes_them(postgres: PostgresServer, tmp_path: Path) -> None:
    """The tables belong to another role, so that ours cannot take the walls down."""
    (statements,) = re.findall(r"^```sql\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "guide.sql").write_text(re.sub(r"\btenon(?=\b|_)", "guide", statements))
    psql = [str(postgres.programs / "psql"), "-v", "ON_ERROR_STOP=1", "-qf", str(tmp_path / "guide.sql")]
    subprocess.run(
        [*psql, postgres.url("postgres", role=SUPERUSER)], check=True, env={"PATH": "/usr/bin:/bin"}
    )
    try:
        with PostgresDatabase(postgres.url("guide", role="guide_owner")) as owner:
            upgrade(owner)
            owner.check()
        with PostgresDatabase(postgres.url("guide", role="guide")) as database:
            upgrade(database)  # nothing to do, and allowed to find that out
            database.check()
            with database.write() as rows:
                rows.tenants.add(_tenant("bank_a"), entry=0)
            for statement in (
                "DROP POLICY tenant_wall ON versions",
                "ALTER TABLE versions DISABLE ROW LEVEL SECURITY",
                "ALTER TABLE entries DISABLE TRIGGER ALL",
                "TRUNCATE entries",
            ):
                with pytest.raises(StoreUnavailable), database.write() as rows:
                    _do(rows, statement)
            with pytest.raises(StoreUnavailable):
                database.migrate("0001")
            database.check()
    finally:
        with postgres.admin() as admin:
            admin.execute("DROP DATABASE IF EXISTS guide WITH (FORCE)")
            admin.execute("DROP ROLE IF EXISTS guide, guide_owner")


def test_a_dump_as_the_guide_makes_it_comes_back(postgres: PostgresServer, url: str, tmp_path: Path) -> None:
    with PostgresDatabase(url) as database, database.write() as rows:
        rows.tenants.add(_tenant("bank_a"), entry=0)
    assert GUIDE.read_text().count("PGOPTIONS='-c tenon.scope=*' pg_") == 2
    environment = {"PGOPTIONS": "-c tenon.scope=*", "PATH": "/usr/bin:/bin"}
    file, programs = str(tmp_path / "dump"), postgres.programs
    dump = [str(programs / "pg_dump"), "--enable-row-security", "-Fc", "-f", file, url]
    subprocess.run(dump, check=True, env=environment)
    with postgres.database(migrated=False) as other:
        restore = [str(programs / "pg_restore"), "--enable-row-security", "--no-owner", "-d", other, file]
        subprocess.run(restore, check=True, env=environment)
        with closing(PostgresDatabase(other)) as database:
            database.check()
            with database.read() as rows:
                assert rows.tenants.all() == (_tenant("bank_a"),)
                assert rows.integrity() == ()
