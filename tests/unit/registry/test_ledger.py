from collections.abc import Callable
from pathlib import Path

import pytest

from registry.catalog.local.catalog import LocalCatalog
from registry.clock import ManualClock
from registry.errors import InvalidInput, LogCorrupt, LogKeyNotInForce
from registry.log.entries import Head
from registry.log.ledger import Ledger
from registry.log.merkle import Frontier, leaf_hash, root
from registry.log.verify import verify_log
from registry.models import Tenant
from registry.signing import types
from registry.signing.envelope import Envelope, verify
from registry.store.database import scratch
from tests.support.registries import World, open_world, signer
from tests.support.tampering import tamper

TRUSTED = {signer("log").public.id: signer("log").public}


def test_entries_and_their_head_are_what_an_auditor_accepts() -> None:
    clock = ManualClock()
    with scratch() as rows:
        heads = []
        for batch in (1, 3, 1, 7):
            ledger = Ledger(rows.log, signer=signer("log"), clock=clock, actor="alice")
            for number in range(batch):
                ledger.append("thing.made", f"thing {number}", {"number": number, "ü": [None, 1.5]})
            heads.append(ledger.seal())
            clock.advance(1)
        entries = rows.log.entries()
        assert [entry.index for entry in entries] == list(range(12))
        assert [entry.at[17:19] for entry in entries] == ["00"] + ["01"] * 3 + ["02"] + ["03"] * 7
        assert {entry.actor for entry in entries} == {"alice"}
        assert rows.log.entries(2, 3) == entries[2:5]
        raw = list(rows.log.raw())
        assert [data for _, data, _ in raw] == [entry.canonical() for entry in entries]
        assert verify_log(raw, [head for head in heads if head], TRUSTED) == []
        assert rows.log.frontier().root() == root([leaf_hash(entry.canonical()) for entry in entries])


def test_the_head_says_size_and_root() -> None:
    with scratch() as rows:
        ledger = Ledger(rows.log, signer=signer("log"), clock=ManualClock(), actor="alice")
        assert ledger.seal() is None
        entry = ledger.append("thing.made", "a", {})
        envelope = ledger.seal()
        assert envelope is not None
        assert rows.log.last_head() == envelope
    head = Head.parse(verify(envelope, payload_type=types.LOG_HEAD, trusted=TRUSTED, role="log"))
    assert (head.size, head.root.hex, head.at) == (1, leaf_hash(entry.canonical()).hex(), entry.at)


def test_time_never_runs_backwards_in_the_log() -> None:
    clock = ManualClock()
    with scratch() as rows:
        for step in (10, -100, 5):
            clock.advance(step)
            ledger = Ledger(rows.log, signer=signer("log"), clock=clock, actor="alice")
            ledger.append("thing.made", "a", {})
            ledger.seal()
        assert [entry.at[17:19] for entry in rows.log.entries()] == ["10", "10", "10"]


@pytest.mark.parametrize("actor", ["", "a" * 201, "two\nlines", "\x1b[31m"])
def test_an_actor_can_be_printed(actor: str) -> None:
    with scratch() as rows, pytest.raises(InvalidInput):
        Ledger(rows.log, signer=signer("log"), clock=ManualClock(), actor=actor)


def _edit(world: World, *statements: str) -> None:
    tamper(world.file, *statements)


def _roll_frontier_back(world: World) -> None:
    """As if nobody had created the last tenant: a shorter log, sound but for its head."""
    with world.database.read() as rows:
        size = rows.log.size()
        kept = [leaf for _, _, leaf in rows.log.raw()][:-1]
    frontier = Frontier()
    for leaf in kept:
        frontier.append(leaf)
    peaks = b"".join(frontier.peaks).hex()
    _edit(
        world,
        f"DELETE FROM entries WHERE position = {size - 1}",
        f"UPDATE frontier SET size = {size - 1}, peaks = '{peaks}'",
    )


TAMPERINGS: dict[str, Callable[[World], None]] = {
    "last entry cut off": lambda world: _edit(
        world, "DELETE FROM entries WHERE position = (SELECT max(position) FROM entries)"
    ),
    "last entry and frontier cut off": _roll_frontier_back,
    "heads removed": lambda world: _edit(world, "DELETE FROM heads"),
    "frontier changed": lambda world: _edit(
        world, "UPDATE frontier SET peaks = substr(peaks, 2) || substr(peaks, 1, 1)"
    ),
    "frontier garbled": lambda world: _edit(world, "UPDATE frontier SET peaks = 'zz'"),
    "frontier removed": lambda world: _edit(world, "DELETE FROM frontier"),
    "head of another": lambda world: _edit(
        world,
        "UPDATE heads SET envelope = (SELECT envelope FROM heads ORDER BY size LIMIT 1)",
    ),
    "entry added": lambda world: _edit(
        world,
        "INSERT INTO entries (position, at, actor, kind, subject, body, leaf, salt)"
        " SELECT position + 1, at, actor, kind, subject, body, leaf, salt FROM entries"
        " ORDER BY position DESC LIMIT 1",
    ),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_nothing_is_appended_to_a_log_that_is_not_as_signed(world: World, tampering: str) -> None:
    TAMPERINGS[tampering](world)
    with pytest.raises(LogCorrupt):
        world.catalog.create_tenant(Tenant(id="new", display_name="n"), actor="test")
    assert "new" not in {tenant.id for tenant in world.catalog.tenants()}
    assert world.catalog.verify()


def test_another_log_key_cannot_continue(world: World) -> None:
    stranger = LocalCatalog(
        database=world.database, blobs=world.blobs, signer=signer("log", 1), clock=ManualClock()
    )
    with pytest.raises(LogKeyNotInForce):
        stranger.create_tenant(Tenant(id="new", display_name="n"), actor="test")
    assert stranger.verify()


def test_appending_reads_no_old_entries(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    try:
        _edit(world, "UPDATE entries SET body = 'gone' WHERE position = 0")
        world.catalog.create_tenant(Tenant(id="new", display_name="n"), actor="test")
        assert world.catalog.verify()[0].where == "entry 0"
    finally:
        world.database.close()


def test_every_commit_has_its_head(world: World) -> None:
    with world.database.read() as rows:
        sizes = [size for size, _ in rows.log.head_texts()]
        assert sizes == list(range(1, rows.log.size() + 1))
        assert all(Envelope.parse(text) for _, text in rows.log.head_texts())
