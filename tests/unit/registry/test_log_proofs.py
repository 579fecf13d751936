"""What the catalog proves about its log, and that nothing else passes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.canonical import decode
from registry.catalog.local.catalog import LocalCatalog
from registry.clock import ManualClock
from registry.digests import Digest
from registry.errors import (
    AlreadyExists,
    EntryNotFound,
    HeadNotFound,
    InvalidInput,
    LogExportInvalid,
    LogKeyNotInForce,
    SignatureInvalid,
    TenantNotFound,
)
from registry.log.entries import Head
from registry.log.export import Exported, verify_export
from registry.log.key_chain import LOG_KEY_ROTATED, KeyChain, Rotation
from registry.log.merkle import leaf_hash
from registry.log.statements import raw
from registry.models import PublicKey, Role, Tenant
from registry.signing import types
from registry.signing.envelope import verify
from tests.support.registries import World, open_world, signer

KEYS = {signer("log").public.id: signer("log").public}


def _grow(catalog: LocalCatalog, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        catalog.create_tenant(Tenant(id=f"t{number}", display_name="x"), actor="test")


def test_inclusion_and_consistency_of_everything(anywhere: World) -> None:
    catalog = anywhere.catalog
    _grow(catalog, 5)
    entries = catalog.entries()
    for size in range(1, len(entries) + 1):
        root = catalog.inclusion(0, size).root
        assert root == Head.parse(catalog.head(size).body()).root
        for index in range(size):
            found = catalog.inclusion(index, size)
            assert found.holds()
            assert (found.index, found.size, found.root) == (index, size, root)
            assert raw(found.leaf) == leaf_hash(entries[index].canonical())
        for first in range(size + 1):
            proof = catalog.consistency(first, size)
            assert proof.holds()
            assert proof.second_root == root


def test_proofs_without_a_size_are_of_the_log_as_it_is(world: World) -> None:
    size = world.catalog.position().size
    assert world.catalog.inclusion(0).size == world.catalog.consistency(1).second == size
    assert Head.parse(world.catalog.head().body()).size == size
    assert [Head.parse(each.body()).size for each in world.catalog.heads(after=size - 2)] == [size - 1, size]


def test_a_statement_with_another_hash_holds_no_more(world: World) -> None:
    other = Digest.of(b"another")
    inclusion, consistency = world.catalog.inclusion(3), world.catalog.consistency(3)
    for field in ("leaf", "root"):
        assert not inclusion.model_copy(update={field: other}).holds()
    for field in ("first_root", "second_root"):
        assert not consistency.model_copy(update={field: other}).holds()


def test_what_is_not_there_is_not_proved(world: World) -> None:
    size = world.catalog.position().size
    for index, at in ((size, None), (3, 3), (0, size + 1), (0, 0)):
        with pytest.raises(EntryNotFound):
            world.catalog.inclusion(index, at)
    for first, second in ((2, 1), (0, size + 1), (-1, 1)):
        with pytest.raises(InvalidInput):
            world.catalog.consistency(first, second)
    with pytest.raises(HeadNotFound):
        world.catalog.head(size + 1)
    with pytest.raises(TenantNotFound):
        world.catalog.export_log("nobody")


def test_entries_are_salted_and_one_after_another(world: World) -> None:
    salts = [entry.salt for entry in world.catalog.entries()]
    assert all(len(salt) == 32 for salt in salts)
    assert len(set(salts)) == len(salts)


# Exports


@pytest.fixture
def exported(anywhere: World) -> list[bytes]:
    anywhere.promoted()
    anywhere.catalog.issue_key("retail_b", role=Role.INFERENCE, actor="test")
    anywhere.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    return list(anywhere.catalog.export_log("bank_a"))


def test_a_tenants_export_proves_its_entries(anywhere: World, exported: list[bytes]) -> None:
    found = verify_export(exported, KEYS)
    assert found.faults == ()
    assert found.trusted
    assert found.complete
    assert found.signed_by == (signer("log").public,)
    own = anywhere.catalog.entries(tenant="bank_a")
    assert found.entries == len(own) == len(exported) - 1 - json.loads(exported[0])["facts"]
    assert found.first == own[0].at
    texts = [json.loads(line)["entry"].encode() for line in exported[-len(own) :]]
    assert texts == [entry.canonical() for entry in own]
    assert len(found.proven()) == 3
    assert len(found.unproven()) == 1


def test_an_export_shows_nothing_of_others(exported: list[bytes]) -> None:
    assert b"retail" not in b"".join(exported).lower()


def test_without_a_known_key_nobody_is_proven_to_have_signed(exported: list[bytes]) -> None:
    found = verify_export(exported, {})
    assert found.faults == ()
    assert not found.trusted
    assert "--trust" in found.unproven()[0]
    stranger = signer("log", 1).public
    assert verify_export(exported, {stranger.id: stranger}).faults


def test_every_tenant_of_many(tmp_path: Path) -> None:
    """More tips than a tile holds: the tree over them has a second stored level."""
    world = open_world(tmp_path)
    try:
        _grow(world.catalog, 260)
        for tenant in ("bank_a", "t0", "t100", "t253", "t254", "t259"):
            found = verify_export(world.catalog.export_log(tenant), KEYS)
            assert (found.faults, found.complete, found.entries) == ((), True, 1), tenant
        world.catalog.issue_key("t7", role=Role.INFERENCE, actor="test")
        assert verify_export(world.catalog.export_log("t7"), KEYS).entries == 2
        assert world.catalog.verify() == []
    finally:
        world.database.close()


def test_an_export_of_several_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from registry.catalog import log

    monkeypatch.setattr(log, "_PAGE", 2)
    for _ in range(4):
        world.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    lines = world.catalog.export_log("bank_a")
    first = next(lines)
    world.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")  # meanwhile
    found = verify_export([first, *lines], KEYS)
    assert (found.faults, found.complete, found.entries) == ((), True, 5)


def _without_last(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def _without_first_own(lines: list[bytes]) -> list[bytes]:
    facts = json.loads(lines[0])["facts"]
    return [*lines[: 1 + facts], *lines[2 + facts :]]


def _fewer_said(lines: list[bytes]) -> list[bytes]:
    """The last entry is left out, and the header says so: only the head knows better."""
    header = json.loads(lines[0])
    return [json.dumps(header | {"entries": header["entries"] - 1}).encode(), *lines[1:-1]]


def _no_tip(lines: list[bytes]) -> list[bytes]:
    header = json.loads(_fewer_said(lines)[0])
    return [json.dumps(header | {"tip": None, "tip_index": None, "tip_proof": []}).encode(), *lines[1:-1]]


def _swapped(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-2], lines[-1], lines[-2]]


def _twice(lines: list[bytes]) -> list[bytes]:
    header = json.loads(lines[0])
    return [json.dumps(header | {"entries": header["entries"] + 1}).encode(), *lines[1:], lines[-1]]


def _other_tenant(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b'"tenant":"bank_a"', b'"tenant":"retail_b"'), *lines[1:]]


def _edited_entry(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-1], lines[-1].replace(b"inference", b"trainer__")]


def _fact_as_entry(lines: list[bytes]) -> list[bytes]:
    header = json.loads(lines[0])
    moved = header | {"facts": header["facts"] - 1, "entries": header["entries"] + 1}
    return [json.dumps(moved).encode(), *lines[1:]]


def _entry_as_fact(lines: list[bytes]) -> list[bytes]:
    header = json.loads(lines[0])
    moved = header | {"facts": header["facts"] + 1, "entries": header["entries"] - 1}
    return [json.dumps(moved).encode(), *lines[1:]]


Spoil = Callable[[list[bytes]], list[bytes]]
SPOILT: list[Spoil] = [
    _without_last, _without_first_own, _fewer_said, _no_tip, _swapped, _twice, _other_tenant, _edited_entry,
    _fact_as_entry, _entry_as_fact,
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_spoilt_export_has_faults(world: World, spoil: Spoil) -> None:
    world.promoted()
    world.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    lines = spoil(list(world.catalog.export_log("bank_a")))
    found = verify_export(lines, KEYS)
    assert found.faults
    assert found.proven() == []


@pytest.mark.parametrize("lines", [[], [b""], [b"{}"], [b"\xff"], [b"[1]"]])
def test_what_is_no_export_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(LogExportInvalid):
        verify_export(lines, KEYS)


def test_an_export_under_a_head_that_counts_nothing(world: World) -> None:
    """As under heads of before: inclusion holds, and completeness is said to be open."""
    lines = list(world.catalog.export_log("bank_a"))
    header = json.loads(lines[0])
    signed = Head.parse(world.catalog.head().body())
    old = Head(size=signed.size, root=signed.root, at=signed.at)
    envelope = signer("log").sign(types.LOG_HEAD, old.canonical()).model_dump(mode="json")
    header |= {"head": envelope, "tip": None, "tip_index": None, "tip_proof": []}
    found = verify_export([json.dumps(header).encode(), *lines[1:]], KEYS)
    assert found.faults == ()
    assert not found.complete
    assert any("left out" in line for line in found.unproven())


# Rotation of the log key


@pytest.fixture
def rotated(anywhere: World) -> World:
    anywhere.catalog.rotate_log_key(signer("log", 1), actor="test")
    _grow(anywhere.catalog, 2)
    anywhere.catalog.rotate_log_key(signer("log", 2), actor="test")
    _grow(anywhere.catalog, 2, start=2)
    return anywhere


def _catalog(world: World, number: int) -> LocalCatalog:
    return LocalCatalog(
        database=world.database, blobs=world.blobs, signer=signer("log", number), clock=ManualClock()
    )


def _rotations(world: World) -> list[Rotation]:
    return [Rotation.of(entry) for entry in world.catalog.entries() if entry.kind == LOG_KEY_ROTATED]


def test_the_log_goes_on_with_the_next_key(rotated: World) -> None:
    assert rotated.catalog.log_key() == signer("log", 2).public
    assert _catalog(rotated, 2).verify() == []
    first, second = _rotations(rotated)
    chain = KeyChain([first, second], KEYS)
    for envelope in rotated.catalog.heads():
        head = chain.open(envelope)
        number = 0 if head.size <= first.index + 1 else 1 if head.size <= second.index + 1 else 2
        key = signer("log", number).public
        verify(envelope, payload_type=types.LOG_HEAD, trusted={key.id: key}, role="log")
        assert len(envelope.signatures) == (2 if head.size in (first.index + 1, second.index + 1) else 1)


@pytest.mark.parametrize("number", [0, 1])
def test_whoever_holds_an_older_key_audits_and_writes_nothing(rotated: World, number: int) -> None:
    old = _catalog(rotated, number)
    assert old.verify() == []
    with pytest.raises(LogKeyNotInForce):
        _grow(old, 1, start=9)
    with pytest.raises(LogKeyNotInForce):
        old.rotate_log_key(signer("log", 3), actor="thief")
    assert rotated.catalog.verify() == []


def test_right_after_the_rotation_the_old_key_writes_nothing(world: World) -> None:
    old = _catalog(world, 0)
    world.catalog.rotate_log_key(signer("log", 1), actor="test")
    with pytest.raises(LogKeyNotInForce):
        _grow(old, 1)
    _grow(_catalog(world, 1), 1)
    assert world.catalog.verify() == []


def test_a_stolen_old_key_signs_no_newer_head(rotated: World) -> None:
    chain = KeyChain(_rotations(rotated), {signer("log", 2).public.id: signer("log", 2).public})
    newest = rotated.catalog.head()
    assert chain.open(newest).size == rotated.catalog.position().size
    for number in (0, 1, 3):
        with pytest.raises(SignatureInvalid):
            chain.open(signer("log", number).sign(types.LOG_HEAD, newest.body()))
    first = _rotations(rotated)[0].index
    for thief in (signer("log", 0), signer("log", 1)):  # a handover needs both
        body = rotated.catalog.head(first + 1).body()
        with pytest.raises(SignatureInvalid):
            chain.open(thief.sign(types.LOG_HEAD, body))


def test_a_stranger_trusts_no_chain_without_a_known_key(rotated: World) -> None:
    stranger = signer("log", 7).public
    with pytest.raises(SignatureInvalid):
        KeyChain(_rotations(rotated), {stranger.id: stranger})
    broken = [Rotation(each.index, stranger, each.signer) for each in _rotations(rotated)]
    with pytest.raises(SignatureInvalid):
        KeyChain(broken, KEYS)
    assert _catalog(rotated, 7).verify()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_export_verifies_from_any_key_of_the_chain(rotated: World, number: int) -> None:
    key = signer("log", number).public
    found = verify_export(rotated.catalog.export_log("bank_a"), {key.id: key})
    assert (found.faults, found.trusted, found.complete) == ((), True, True)
    assert found.signed_by == (signer("log", 2).public,)


def test_an_export_without_its_rotations_has_faults(rotated: World) -> None:
    lines = list(rotated.catalog.export_log("bank_a"))
    header = json.loads(lines[0])
    kept = [line for line in lines[1:] if LOG_KEY_ROTATED.encode() not in line]
    fewer = header | {"facts": header["facts"] - 2, "handovers": []}
    found = verify_export([json.dumps(fewer).encode(), *kept], KEYS)
    assert any("signature" in fault for fault in found.faults)
    none: list[object] = []
    for handovers in (none, header["handovers"][:1], header["handovers"][::-1]):
        found = verify_export([json.dumps(header | {"handovers": handovers}).encode(), *lines[1:]], KEYS)
        assert found.faults, handovers


def test_a_log_key_is_used_once_and_never_trusted_by_hand(world: World) -> None:
    for key in (signer("log"), signer("trainer")):
        with pytest.raises((AlreadyExists, InvalidInput)):
            world.catalog.rotate_log_key(key, actor="test")
    world.catalog.rotate_log_key(signer("log", 1), actor="test")
    with pytest.raises(AlreadyExists):
        world.catalog.rotate_log_key(signer("log", 0), actor="test")
    other: PublicKey = signer("log", 5).public
    with pytest.raises(InvalidInput):
        world.catalog.trust(other, actor="test")


def test_a_rotation_that_lost_its_head_is_a_fault(rotated: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from registry.catalog.audit import audit

    first = _rotations(rotated)[0].index
    key = signer("log", 2).public
    with rotated.database.read() as rows:
        kept = [(size, text) for size, text in rows.log.head_texts() if size != first + 1]
        log = type("Log", (), {"__getattr__": lambda _, name: getattr(rows.log, name)})()
        log.head_texts = lambda: iter(kept)
        fewer = type(
            "Rows", (), {"__getattr__": lambda _, name: log if name == "log" else getattr(rows, name)}
        )()
        faults = audit(fewer, trusted={key.id: key}, blobs=None)
    assert [fault.where for fault in faults] == [f"entry {first}"]


def test_decoding_an_export_line_gives_the_entry(exported: list[bytes]) -> None:
    found: Exported = verify_export(exported, KEYS)
    assert decode(json.loads(exported[-1])["entry"])["index"] < found.head.size
