import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from registry.errors import WorkspaceNotFound
from registry.store import migrate
from registry.store.database import Database, upgrade
from registry.store.errors import SchemaOutdated, StoreCorrupt
from registry.store.migrations import REVISION, REVISIONS
from registry.store.rows import Row


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "registry.db") as made:
        yield made


def _tables(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    try:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    finally:
        connection.close()


def test_up_from_nothing_and_down_again(database: Database, tmp_path: Path) -> None:
    upgrade(database)
    upgrade(database)
    database.check()
    assert {"entries", "heads", "versions"} <= _tables(tmp_path / "registry.db")
    database.migrate("base")
    assert _tables(tmp_path / "registry.db") == {"alembic_version"}
    upgrade(database)
    database.check()


def test_migrated_tables_are_the_rows(database: Database, tmp_path: Path) -> None:
    upgrade(database)
    engine = create_engine(f"sqlite:///{tmp_path / 'registry.db'}")
    try:
        with engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Row.metadata) == []
    finally:
        engine.dispose()


def test_the_scripts_and_the_list_of_revisions_agree() -> None:
    scripts = ScriptDirectory.from_config(migrate.config())
    assert tuple(reversed([script.revision for script in scripts.walk_revisions()])) == REVISIONS
    assert scripts.get_current_head() == REVISION


def test_a_missing_file_is_no_empty_registry(database: Database, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceNotFound):
        database.check()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("revision", ["0000", "9999"])
def test_another_revision_is_a_clear_error(database: Database, tmp_path: Path, revision: str) -> None:
    upgrade(database)
    connection = sqlite3.connect(tmp_path / "registry.db")
    connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.commit()
    connection.close()
    for use in (database.read, database.write):
        with pytest.raises(SchemaOutdated, match=revision) as refused, use():
            pass
        assert refused.value.code == "schema_outdated"
        assert "tenon init --upgrade" in refused.value.advice
    with pytest.raises(SchemaOutdated, match="does not know"):
        upgrade(database)


def test_an_empty_file_has_no_revision(database: Database, tmp_path: Path) -> None:
    (tmp_path / "registry.db").touch()
    with pytest.raises(SchemaOutdated, match="none"):
        database.check()


def test_another_file_is_no_database(database: Database, tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"dear diary, " * 1000)
    for use in (database.check, lambda: upgrade(database)):
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


def test_two_upgrades_at_once_are_one(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from registry.store.database import Database, upgrade;"
        "database = Database(pathlib.Path(sys.argv[1])); upgrade(database); database.check()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    runs = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "registry.db")], env=environment)
        for _ in range(2)
    ]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
