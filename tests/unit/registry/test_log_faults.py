"""Whatever somebody changes in the database file is found, or changes nothing."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.blobs.memory import InMemoryBlobs
from registry.catalog.local.catalog import LocalCatalog
from registry.clock import ManualClock
from registry.errors import LogCorrupt, TenonError
from registry.log.export import verify_export
from registry.models import Role, Tenant
from registry.store.database import Database
from registry.store.tables.log import LogTable
from tests.support.registries import World, open_world, signer
from tests.support.tampering import tamper

KEYS = {signer("log").public.id: signer("log").public}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry in one file, without a journal beside it."""
    world = open_world(tmp_path_factory.mktemp("original"))
    world.promoted()
    world.catalog.issue_key("retail_b", role=Role.INFERENCE, actor="test")
    world.catalog.rotate_log_key(signer("log", 1), actor="test")
    world.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    world.database.close()
    connection = sqlite3.connect(world.file)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    return world.file


def _catalog(database: Database) -> LocalCatalog:
    return LocalCatalog(
        database=database, blobs=InMemoryBlobs(), signer=signer("log", 1), clock=ManualClock()
    )


def _found(file: Path) -> bool:
    try:
        with Database(file) as database:
            return bool(_catalog(database).verify())
    except TenonError:
        return True  # it does not even open, and says so


def _content(file: Path) -> list[str]:
    connection = sqlite3.connect(file)
    connection.text_factory = bytes
    try:
        return [str(row) for row in connection.execute("SELECT name FROM sqlite_master")] + [
            f"{table} {sorted(map(str, connection.execute(f'SELECT * FROM {table}')))}"
            for table in ("entries", "heads", "frontier", "nodes", "tips", "tip_nodes", "keys", "versions")
        ]
    finally:
        connection.close()


@pytest.mark.parametrize("text", [b"sha256:", b", \n\tFOREIGN KEY(sign"])
def test_text_that_cannot_be_read_is_a_finding_and_no_crash(
    original: Path, tmp_path: Path, text: bytes
) -> None:
    """Of a flipped high bit: Python's layer above SQLite refuses it, with no code of SQLite's. Of the schema,
    SQLite's own message cannot be read, which quotes it."""
    file = tmp_path / "registry.db"
    content = original.read_bytes()
    at = content.index(text)
    file.write_bytes(content[:at] + bytes([content[at] ^ 0x80]) + content[at + 1 :])
    assert _found(file)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_flipped_bit_anywhere_in_the_file(
    original: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    changed = bytearray(original.read_bytes())
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    file = tmp_path_factory.mktemp("flipped") / "registry.db"
    file.write_bytes(changed)
    if not _found(file):  # space that nothing uses, a counter of SQLite's
        assert _content(file) == _content(original)


TREES = {
    "a node of the log": "UPDATE nodes SET hash = zeroblob(32) WHERE height = 0 AND position = 4",
    "a node cut": "UPDATE nodes SET hash = x'00' WHERE height = 0 AND position = 4",
    "a node gone": "DELETE FROM nodes WHERE height = 0 AND position = 4",
    "a node too many": "INSERT INTO nodes SELECT 0, max(position) + 1, zeroblob(32) FROM nodes",
    "a tip's count": "UPDATE tips SET entries = entries + 1 WHERE tenant = 'bank_a'",
    "a tip's chain": f"UPDATE tips SET chain = 'sha256:{'0' * 64}' WHERE tenant = 'bank_a'",
    "a tip gone": "DELETE FROM tips WHERE tenant = 'retail_b'",
    "a node of the tips": "UPDATE tip_nodes SET hash = zeroblob(32) WHERE height = 0 AND position = 0",
    "an upper node of the tips": "UPDATE tip_nodes SET hash = zeroblob(32) WHERE height = 1",
    "an entry given to another": "UPDATE entries SET tenant = 'retail_b' WHERE tenant = 'bank_a'",
    "an entry given to the platform": "UPDATE entries SET tenant = NULL WHERE kind = 'version.pushed'",
    "a salt": f"UPDATE entries SET salt = '{'0' * 32}' WHERE position = 3",
    "a rotation gone": "DELETE FROM entries WHERE kind = 'log.key_rotated'",
    "a rotation's key": "UPDATE entries SET body = replace(body, 'log', 'a') WHERE kind = 'log.key_rotated'",
    "a handover signed by one": (
        "UPDATE heads SET envelope = json_set(envelope, '$.signatures', json_array(json_extract(envelope,"
        " '$.signatures[0]'))) WHERE json_array_length(envelope, '$.signatures') = 2"
    ),
}


def _edited(original: Path, folder: Path, statement: str) -> Path:
    file = folder / "registry.db"
    shutil.copy(original, file)
    tamper(file, statement)
    return file


@pytest.mark.parametrize("what", TREES)
def test_what_proofs_are_made_from(original: Path, tmp_path: Path, what: str) -> None:
    assert _found(_edited(original, tmp_path, TREES[what]))


def test_nothing_is_signed_over_tips_that_were_changed(original: Path, tmp_path: Path) -> None:
    """Whether the tip itself or a hash: what the head before said is not there any more."""
    changed = ("a tip's count", "a tip's chain", "a node of the tips", "an upper node of the tips")
    for number, what in enumerate(changed):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Database(_edited(original, folder, TREES[what])) as database:
            refused = [_refused(_catalog(database), tenant) for tenant in ("retail_b", "bank_a")]
            assert any(refused), what


def test_no_change_of_the_platform_signs_other_tips_either(original: Path, tmp_path: Path) -> None:
    file = _edited(original, tmp_path, TREES["an upper node of the tips"])
    with Database(file) as database, pytest.raises(LogCorrupt):
        _catalog(database).trust(signer("trainer", 1).public, actor="test")


def _refused(catalog: LocalCatalog, tenant: str) -> bool:
    before = catalog.head()
    try:
        catalog.issue_key(tenant, role=Role.INFERENCE, actor="test")
    except LogCorrupt:
        assert catalog.head() == before
        return True
    return False


def test_an_export_from_a_changed_database_has_faults(original: Path, tmp_path: Path) -> None:
    for number, what in enumerate(("a tip's count", "a node of the log", "an entry given to the platform")):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Database(_edited(original, folder, TREES[what])) as database:
            assert verify_export(_catalog(database).export_log("bank_a"), KEYS).faults, what


def test_the_original_is_sound(original: Path, tmp_path: Path) -> None:
    file = tmp_path / "registry.db"
    shutil.copy(original, file)
    assert not _found(file)


def test_the_nodes_only_grow(world: World) -> None:
    connection = sqlite3.connect(world.file)
    for statement in ("UPDATE nodes SET hash = x'00'", "DELETE FROM nodes"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


def test_a_clock_that_is_set_back_sets_nothing_back(world: World, tmp_path: Path) -> None:
    late, early = ManualClock(), ManualClock()
    late.advance(3600)
    for number, clock in enumerate((late, early)):
        catalog = LocalCatalog(database=world.database, blobs=world.blobs, signer=signer("log"), clock=clock)
        catalog.create_tenant(Tenant(id=f"t{number}", display_name="x"), actor="test")
    times = [entry.at for entry in world.catalog.entries()]
    assert times == sorted(times)
    assert times[-1] == times[-2]
    assert world.catalog.verify() == []


def test_a_false_count_that_the_log_key_signed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator itself leaves an entry out of a tenant's tip: everybody who has the log can show it."""
    with monkeypatch.context() as patched:
        patched.setattr(LogTable, "put_tip", lambda *_: None)
        world.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    size = world.catalog.position().size
    faults = [str(fault) for fault in world.catalog.verify()]
    assert any(
        fault.startswith(f"head {size} (size {size}): what it says of the tenants") for fault in faults
    )
    found = verify_export(world.catalog.export_log("bank_a"), KEYS)
    assert found.faults
    assert not found.complete
