"""Somebody edits the SQLite file. ``verify`` must name the entry."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.blobs.memory import InMemoryBlobs
from registry.canonical import encode
from registry.catalog.audit import audit
from registry.catalog.local.catalog import LocalCatalog
from registry.clock import ManualClock
from registry.log.entries import Entry
from registry.log.merkle import Frontier, leaf_hash
from registry.models import Role, Tenant
from registry.store.database import Database
from tests.support.registries import open_world, record_head, route, signer
from tests.support.tampering import tamper


@pytest.fixture(scope="module")
def _full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with at least one row in every table, and two tenants' keys."""
    world = open_world(tmp_path_factory.mktemp("full"))
    policy = world.policy()
    world.catalog.publish_routing("bank_a", routes=[route(policy)], actor="test")
    world.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    revoked, _ = world.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    world.catalog.revoke_key(revoked.id, actor="test")
    world.catalog.issue_key("retail_b", role=Role.INFERENCE, actor="test")
    world.catalog.revoke(world.push(seed=3), reason="x", actor="test")
    world.promoted(seed=1)
    version = world.promoted(seed=2)
    world.catalog.announce(world.engine(), actor="test")
    world.catalog.attest(world.attestation(version), actor="test")
    world.catalog.record_head(record_head(4), actor="test")
    assert world.catalog.verify() == []
    world.database.close()
    return world.file


@pytest.fixture
def catalog(_full: Path, tmp_path: Path) -> Iterator[LocalCatalog]:
    shutil.copy(_full, tmp_path / "registry.db")
    with Database(tmp_path / "registry.db") as database:
        yield LocalCatalog(
            database=database, blobs=InMemoryBlobs(), signer=signer("log"), clock=ManualClock()
        )


def _edit(folder: Path, *statements: str) -> None:
    tamper(folder / "registry.db", *statements)


def _last(catalog: LocalCatalog, kind: str) -> int:
    return max(entry.index for entry in catalog.entries() if entry.kind == kind)


FIRST = "(SELECT digest FROM versions ORDER BY pushed LIMIT 1)"
THEIRS = "WHERE tenant = 'retail_b'"
ROWS = [
    ("alias.moved", f"UPDATE aliases SET version = {FIRST}", "version"),
    ("alias.moved", "UPDATE aliases SET epoch = 99", "epoch"),
    ("alias.moved", "DELETE FROM aliases", "removed"),
    ("key.revoked", "UPDATE keys SET revoked = 0 WHERE revoked", "revoked"),
    ("key.issued", f"UPDATE keys SET tenant = 'bank_a' {THEIRS}", "tenant"),
    ("key.issued", f"UPDATE keys SET role = 'platform_admin' {THEIRS}", "role"),
    ("key.issued", f"UPDATE keys SET secret_hash = replace(secret_hash, 'a', 'b') {THEIRS}", "secret_hash"),
    (
        "routing.published",
        "UPDATE routes SET document = replace(document, 'assistant', 'writer')",
        "document",
    ),
    ("routing.published", "DELETE FROM routes", "removed"),
    ("policy.published", "UPDATE policies SET document = replace(document, '256', '999')", "document"),
    ("policy.published", "UPDATE policies SET tenant = 'retail_b'", "tenant"),
    ("version.revoked", "UPDATE versions SET revoked = 0", "revoked"),
    ("version.pushed", "UPDATE versions SET manifest = replace(manifest, 'q_proj', 'k_proj')", "manifest"),
    ("report.filed", "UPDATE reports SET document = replace(document, '0.9', '1.9')", "document"),
    ("base.registered", "UPDATE bases SET contract = replace(contract, '[1,2,3]', '[1,2,4]')", "contract"),
    ("tenant.created", "UPDATE tenants SET display_name = 'x'", "display_name"),
    ("signer.trusted", "UPDATE signers SET role = 'trainer' WHERE role = 'router'", "role"),
    ("engine.announced", "UPDATE engines SET document = replace(document, '8001', '8002')", "document"),
    ("engine.attested", f"UPDATE slots SET version = {FIRST}", "removed"),
    ("engine.attested", "UPDATE slots SET boot = 'boot-0009'", "boot"),
    ("records.head", "UPDATE record_heads SET seq = 1", "seq"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "statement", "word"), ROWS, ids=[statement[:60] for _, statement, _ in ROWS]
)
def test_a_row_changed_behind_the_log(
    catalog: LocalCatalog, tmp_path: Path, kind: str, statement: str, word: str
) -> None:
    entry = _last(catalog, kind)
    _edit(tmp_path, statement)
    faults = catalog.verify()
    assert any(fault.where == f"entry {entry}" and word in fault.what for fault in faults), faults


def test_a_row_that_no_entry_made(catalog: LocalCatalog, tmp_path: Path) -> None:
    _edit(
        tmp_path,
        "INSERT INTO tenants (id, display_name, suspended, quota, entry) VALUES ('evil', 'Evil', 0, '{}', 0)",
    )
    (fault,) = catalog.verify()
    assert fault.where == "tenants evil"


@pytest.mark.parametrize("column", ["body", "actor", "at", "kind", "subject", "leaf"])
@pytest.mark.parametrize("back", [0, 5])
def test_one_character_of_an_entry(catalog: LocalCatalog, tmp_path: Path, column: str, back: int) -> None:
    entry = catalog.snapshot().size - 1 - back
    _edit(
        tmp_path,
        f"UPDATE entries SET {column} = substr({column}, 1, length({column}) - 2) || 'X'"
        f" || substr({column}, -1) WHERE position = {entry}",
    )
    assert f"entry {entry}" in {fault.where for fault in catalog.verify()}


def test_white_space_in_an_entry(catalog: LocalCatalog, tmp_path: Path) -> None:
    """The same value, other bytes: bytes are identity."""
    _edit(tmp_path, "UPDATE entries SET body = body || ' ' WHERE position = 3")
    assert {fault.where for fault in catalog.verify()} == {"entry 3"}


def test_an_entry_rewritten_with_its_leaf_its_row_and_the_frontier(
    catalog: LocalCatalog, tmp_path: Path
) -> None:
    """Everything that needs no signature is made consistent: the heads still tell."""
    entries = list(catalog.entries())
    at = next(entry.index for entry in entries if entry.kind == "tenant.created")
    body = {"tenant": {"id": "bank_a", "display_name": "Forged"}}
    forged = Entry(**(dict(entries[at]) | {"body": body}))
    frontier = Frontier()
    for entry in (*entries[:at], forged, *entries[at + 1 :]):
        frontier.append(leaf_hash(entry.canonical()))
    peaks = b"".join(frontier.peaks).hex()
    _edit(
        tmp_path,
        f"UPDATE entries SET body = '{encode(body).decode()}' WHERE position = {at}",
        f"UPDATE entries SET leaf = '{leaf_hash(forged.canonical()).hex()}' WHERE position = {at}",
        "UPDATE tenants SET display_name = 'Forged' WHERE id = 'bank_a'",
        f"UPDATE frontier SET peaks = '{peaks}'",
    )
    faults = catalog.verify()
    assert faults
    assert any(str(at) in fault.where + fault.what for fault in faults)
    assert any(fault.where.startswith("head") for fault in faults)


def test_entries_that_nobody_signed(catalog: LocalCatalog, tmp_path: Path) -> None:
    size = catalog.snapshot().size
    _edit(
        tmp_path,
        "INSERT INTO entries (position, at, actor, kind, subject, body, leaf, salt)"
        f" SELECT {size}, at, actor, kind, subject, body, leaf, salt FROM entries WHERE position = 0",
    )
    assert any(fault.where == f"entry {size}" and "no head" in fault.what for fault in catalog.verify())


def test_the_end_of_the_log_cut_off(catalog: LocalCatalog, tmp_path: Path) -> None:
    _edit(tmp_path, "DELETE FROM entries WHERE position >= 10")
    faults = catalog.verify()
    assert any("cut off" in fault.what for fault in faults)


def test_a_missing_entry_in_the_middle(catalog: LocalCatalog, tmp_path: Path) -> None:
    _edit(tmp_path, "DELETE FROM entries WHERE position = 6")
    assert any("entry 6" in fault.where and "missing" in fault.what for fault in catalog.verify())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE heads SET envelope = 'x' WHERE size = 5",
        "UPDATE heads SET envelope = replace(envelope, 'sig', 'gis') WHERE size = 5",
        "UPDATE heads SET envelope = (SELECT envelope FROM heads WHERE size = 4) WHERE size = 5",
    ],
)
def test_a_head_replaced(catalog: LocalCatalog, tmp_path: Path, statement: str) -> None:
    _edit(tmp_path, statement)
    assert any(fault.where.startswith("head") for fault in catalog.verify())


@pytest.mark.parametrize("table", ["entries", "heads", "nodes"])
@pytest.mark.parametrize("action", ["update", "delete"])
@pytest.mark.parametrize(
    "instead", [None, "CREATE TRIGGER {0}_no_{1} BEFORE {1} ON {0} WHEN 0 BEGIN SELECT 1; END"]
)
def test_a_log_that_no_longer_only_grows(
    catalog: LocalCatalog, tmp_path: Path, table: str, action: str, instead: str | None
) -> None:
    connection = sqlite3.connect(tmp_path / "registry.db")
    connection.execute(f"DROP TRIGGER {table}_no_{action}")
    if instead is not None:
        connection.execute(instead.format(table, action))
    connection.commit()
    connection.close()
    (fault,) = catalog.verify()
    assert (fault.where, fault.what.rsplit(": ")[1]) == ("database file", f"{table}_no_{action}")


@pytest.mark.parametrize("taken", [("2",), ("3", "4")])
def test_a_head_in_the_middle_taken_away(tmp_path: Path, store: str, taken: tuple[str, ...]) -> None:
    """Every other head still fits, and covers its entries."""
    clock = ManualClock()
    world = open_world(tmp_path, store=store, clock=clock)
    size = world.catalog.log_size()
    for number in range(5):
        clock.advance(1)
        world.catalog.create_tenant(Tenant(id=f"t{number}", display_name="x"), actor="test")
    assert world.catalog.verify() == []
    sizes = [size + int(number) for number in taken]
    with world.database.read() as rows:
        log = _Fewer(rows.log, head_texts=[each for each in rows.log.head_texts() if each[0] not in sizes])
        key = signer("log").public
        faults = audit(_Fewer(rows, log=log), trusted={key.id: key}, blobs=None)  # type: ignore[arg-type]
    assert [fault.where for fault in faults] == [f"head of size {each}" for each in sizes]
    world.database.close()


class _Fewer:
    """A reader of the same rows that lacks some."""

    def __init__(self, whole: object, **instead: object) -> None:
        self._whole = whole
        self._instead = instead

    def __getattr__(self, name: str) -> object:
        if name not in self._instead:
            return getattr(self._whole, name)
        found = self._instead[name]
        return (lambda: iter(found)) if isinstance(found, list) else found


def test_a_frontier_replaced(catalog: LocalCatalog, tmp_path: Path) -> None:
    _edit(tmp_path, "UPDATE frontier SET peaks = replace(peaks, '1', '2')")
    assert [fault.where for fault in catalog.verify()] == ["frontier"]
