import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Boolean, Connection, MetaData, create_engine, inspect, text

from registry.errors import WorkspaceNotFound
from registry.store import migrate
from registry.store.database import Database, upgrade
from registry.store.errors import SchemaOutdated, StoreConflict, StoreCorrupt
from registry.store.migrations import REVISION, REVISIONS
from registry.store.rows import Row
from tests.support.postgres import PostgresServer
from tests.support.registries import NAME, open_world
from tests.support.stores import KINDS, connect, fresh, is_sqlite

ROOT = Path(__file__).parents[3]
OLD = ROOT / "tests" / "support" / "old_registry.json"
STEPS = list(zip(("base", *REVISIONS), REVISIONS, strict=False))


@pytest.fixture(params=KINDS)
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of a database without tables (SQLite: of no file yet)."""
    server = lambda: request.getfixturevalue("postgres")  # noqa: E731
    with fresh(request.param, tmp_path, server, migrated=False) as address:
        yield address


@contextmanager
def _sql(address: str) -> Iterator[Connection]:
    """Past Tenon; on PostgreSQL with all rows in sight."""
    if is_sqlite(address):
        engine = create_engine(f"sqlite:///{address}")
    else:
        engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(address))
    try:
        with engine.begin() as connection:
            if not is_sqlite(address):
                connection.execute(text("SET tenon.scope = '*'"))
            yield connection
    finally:
        engine.dispose()


def _tables(address: str) -> set[str]:
    with _sql(address) as connection:
        return set(inspect(connection).get_table_names())


def _contents(address: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, columns by name."""
    found = {}
    with _sql(address) as connection:
        inspected = inspect(connection)
        for table in inspected.get_table_names():
            columns = sorted(column["name"] for column in inspected.get_columns(table))
            chosen = ", ".join(f'"{column}"' for column in columns)
            rows = connection.execute(text(f'SELECT {chosen} FROM "{table}"')).all()
            found[table] = sorted((tuple(row) for row in rows), key=repr)
    return found


def test_up_from_nothing_and_down_again(bare: str) -> None:
    with closing(connect(bare)) as database:
        upgrade(database)
        upgrade(database)
        database.check()
        assert {"entries", "heads", "versions"} <= _tables(bare)
        database.migrate("base")
        assert _tables(bare) == {"alembic_version"}
        upgrade(database)
        database.check()


def test_migrated_tables_are_the_rows(store: str) -> None:
    with _sql(store) as connection:
        assert compare_metadata(MigrationContext.configure(connection), Row.metadata) == []


@pytest.mark.parametrize(("below", "above"), STEPS, ids=[above for _, above in STEPS])
def test_a_step_down_undoes_a_step_up(bare: str, below: str, above: str) -> None:
    """The schema of a revision is the same from above as from below."""
    with closing(connect(bare)) as database:
        database.migrate(below)
        before = _schema(bare)
        database.migrate(above)
        assert _schema(bare) != before or (is_sqlite(bare) and above == "0003")
        database.migrate(below)
        after = _schema(bare)
        after.pop("alembic_version", None)  # stays, empty
        before.pop("alembic_version", None)
        assert after == before


def test_what_was_promoted_in_two_phases_does_not_step_down(bare: str, tmp_path: Path) -> None:
    """The Tenon of before knows neither the entry nor what an alias showed before: nothing is changed."""
    with closing(connect(bare)) as database:
        upgrade(database)
    world = open_world(tmp_path, store=bare)
    version = world.evaluated()
    world.catalog.prepare(NAME, version, seconds=60, actor="test")
    world.database.close()
    with closing(connect(bare)) as database:
        database.migrate("0007")
        with pytest.raises(StoreConflict, match="two phases"):
            database.migrate("0006")
        upgrade(database)
    again = open_world(tmp_path, store=bare, filled=True)
    assert [each.version for each in again.catalog.snapshot().preparations] == [version]
    again.database.close()


def _schema(address: str) -> dict[str, object]:
    with _sql(address) as connection:
        inspected = inspect(connection)
        found: dict[str, object] = {
            table: (
                sorted(
                    (column["name"], str(column["type"]), column["nullable"])
                    for column in inspected.get_columns(table)
                ),
                sorted(map(repr, inspected.get_foreign_keys(table))),
                sorted(f"{index['name']} {index['column_names']}" for index in inspected.get_indexes(table)),
                inspected.get_pk_constraint(table)["constrained_columns"],
            )
            for table in inspected.get_table_names()
        }
        triggers = (
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            if is_sqlite(address)
            else "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
            " UNION SELECT policyname || tablename || qual || coalesce(with_check, '') FROM pg_policies"
        )
        found["triggers and policies"] = sorted(connection.execute(text(triggers)).scalars())
        return found


def _fill(address: str) -> None:
    """A registry that the first release wrote, with rows in every table."""
    with closing(connect(address)) as database:
        database.migrate("0001")
    rows: dict[str, list[dict[str, object]]] = json.loads(OLD.read_text())
    with _sql(address) as connection:
        tables = MetaData()
        tables.reflect(connection)
        for name, values in rows.items():
            table = tables.tables[name]
            booleans = {column.name for column in table.columns if isinstance(column.type, Boolean)}
            given = [{key: bool(row[key]) if key in booleans else row[key] for key in row} for row in values]
            connection.execute(table.insert(), given)


@pytest.mark.parametrize("revision", REVISIONS[1:])
def test_what_the_first_release_wrote_survives_up_and_down(bare: str, revision: str) -> None:
    _fill(bare)
    before = _contents(bare)
    with closing(connect(bare)) as database:
        database.migrate(revision)
        held = _contents(bare)
        assert {name: len(held[name]) for name in before} == {name: len(before[name]) for name in before}
        database.migrate("0001")
    assert _contents(bare) == before


def test_the_newest_release_works_on_what_the_first_one_wrote(bare: str, tmp_path: Path) -> None:
    _fill(bare)
    with closing(connect(bare)) as database:
        upgrade(database)
        with database.read() as rows:
            assert rows.integrity() == ()
    world = open_world(tmp_path, store=bare, filled=True)
    assert world.catalog.verify() == []
    assert len(world.catalog.routing("bank_a").routes) == 2
    world.promoted(seed=4)
    assert world.catalog.verify() == []
    world.database.close()


STOP = """
import sys
from contextlib import closing
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tests.support.stores import connect
left = int(sys.argv[3])
def stop(*_):
    global left
    left -= 1
    if left == 0:
        print("in the middle", flush=True)
        sys.stdin.readline()
event.listen(Engine, "before_cursor_execute", stop)
def stop_at_the_end(_):
    print("before the commit", flush=True)
    sys.stdin.readline()
event.listen(Engine, "commit", stop_at_the_end)
with closing(connect(sys.argv[1])) as database:
    database.migrate(sys.argv[2])
"""


@pytest.mark.parametrize("statement", [40, 100_000], ids=["in the middle", "before the commit"])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_migration_that_is_killed(bare: str, tmp_path: Path, statement: int, direction: str) -> None:
    _fill(bare)
    start, end = ("0001", "head") if direction == "up" else ("head", "0001")
    with closing(connect(bare)) as database:
        database.migrate(start)
    before = _contents(bare)
    process = subprocess.Popen(
        [sys.executable, "-c", STOP, bare, end, str(statement)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        assert said == ("before the commit" if statement == 100_000 else "in the middle")
        os.kill(process.pid, signal.SIGKILL)
    with closing(connect(bare)) as database:
        database.migrate(start)  # waits until the server has noticed; changes nothing
        assert _contents(bare) == before
        upgrade(database)
    world = open_world(tmp_path, store=bare, filled=True)
    assert world.catalog.verify() == []
    world.database.close()


def test_every_text_sorts_as_bytes(postgres: PostgresServer) -> None:
    """As in SQLite, whatever language the server was set up in: pages are cut by order."""
    with postgres.database() as address, _sql(address) as connection:
        others = (
            "SELECT table_name || '.' || column_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND data_type IN ('character varying', 'text')"
            " AND collation_name IS DISTINCT FROM 'C'"
        )
        assert list(connection.execute(text(others)).scalars()) == ["alembic_version.version_num"]


def test_the_scripts_and_the_list_of_revisions_agree() -> None:
    scripts = ScriptDirectory.from_config(migrate.config())
    assert tuple(reversed([script.revision for script in scripts.walk_revisions()])) == REVISIONS
    assert scripts.get_current_head() == REVISION


@pytest.mark.parametrize("revision", ["0000", "9999"])
def test_another_revision_is_a_clear_error(store: str, revision: str) -> None:
    with _sql(store) as connection:
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{revision}'"))
    with closing(connect(store)) as database:
        for use in (database.read, database.write):
            with pytest.raises(SchemaOutdated, match=revision) as refused, use():
                pass
            assert refused.value.code == "schema_outdated"
            assert "tenon init --upgrade" in refused.value.advice
        with pytest.raises(SchemaOutdated, match="does not know"):
            upgrade(database)


def test_two_upgrades_at_once_are_one(bare: str) -> None:
    script = (
        "import sys; from tests.support.stores import connect;"
        "database = connect(sys.argv[1]); database.migrate('head'); database.check(); database.close()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = [subprocess.Popen([sys.executable, "-c", script, bare], env=environment) for _ in range(2)]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]


# A file


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "registry.db") as made:
        yield made


def test_a_missing_file_is_no_empty_registry(database: Database, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceNotFound):
        database.check()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_has_no_revision(database: Database, tmp_path: Path) -> None:
    (tmp_path / "registry.db").touch()
    with pytest.raises(SchemaOutdated, match="none"):
        database.check()


def test_another_file_is_no_database(database: Database, tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"dear diary, " * 1000)
    uses: tuple[Callable[[], None], ...] = (database.check, lambda: upgrade(database))
    for use in uses:
        with pytest.raises(StoreCorrupt):
            use()


def test_a_new_file_is_private(database: Database, tmp_path: Path) -> None:
    upgrade(database)
    assert stat.S_IMODE((tmp_path / "registry.db").stat().st_mode) == 0o600


def test_the_folder_must_be_there(tmp_path: Path) -> None:
    with Database(tmp_path / "nowhere" / "registry.db") as database, pytest.raises(WorkspaceNotFound):
        upgrade(database)


def test_a_strange_path_is_only_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "a?mode=ro&b#c %20"
    folder.mkdir()
    with Database(folder / "registry.db") as database:
        upgrade(database)
        database.check()
    assert (folder / "registry.db").is_file()
