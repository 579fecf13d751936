import gc
import sqlite3
import threading
from contextlib import closing

import pytest

from registry.catalog import feed
from registry.catalog.errors import LogTruncated
from registry.catalog.local.catalog import LocalCatalog
from registry.clock import ManualClock
from registry.digests import Digest
from registry.errors import InvalidDocument, InvalidInput, LogForked
from registry.feed import Delta, Snapshot, State, encode, parse
from registry.log.entries import Head
from registry.models import Role, Tenant
from registry.store.errors import StoreCorrupt
from tests.support.histories import begun, change_tenant
from tests.support.registries import World, open_world, route, signer


def test_the_feed_tells_all_and_then_nothing_until_something_changes(world: World) -> None:
    snapshot = world.catalog.changes(-1)
    assert snapshot == world.catalog.changes(0) == world.catalog.snapshot()
    assert isinstance(snapshot, Snapshot)
    assert world.catalog.changes(*snapshot.position) is None
    world.catalog.create_tenant(Tenant(id="saas_c", display_name="C"), actor="test")
    newer = world.catalog.changes(*snapshot.position)
    assert isinstance(newer, Delta)
    assert (newer.after, newer.size) == (snapshot.size, snapshot.size + 1)
    assert [tenant.id for tenant in newer.tenants] == ["saas_c"]
    assert State.of(snapshot).after(newer).snapshot() == world.catalog.snapshot()


def test_a_snapshot_holds_everything_and_travels_as_json(world: World) -> None:
    policy = world.policy()
    key, _ = world.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    world.catalog.publish_routing("bank_a", routes=[route(policy)], actor="test")
    version = world.promoted()
    world.catalog.announce(world.engine(), actor="test")
    world.catalog.attest(world.attestation(version), actor="test")
    snapshot = world.catalog.snapshot()
    assert snapshot.keys == (key,)
    assert list(snapshot.policies) == [policy]
    assert list(snapshot.bases) == [world.base]
    assert [route.policy for routing in snapshot.routings for route in routing.routes] == [policy]
    assert [(alias.version, alias.epoch) for alias in snapshot.aliases] == [(version, 1)]
    assert [(state.version, state.rank, state.revoked) for state in snapshot.versions] == [
        (version, 4, False)
    ]
    assert [engine.engine for engine in snapshot.engines] == ["engine-0"]
    assert [slot.version for slot in snapshot.slots] == [version]
    assert parse(encode(snapshot)) == snapshot


def test_its_root_is_the_signed_one(world: World) -> None:
    with world.database.read() as rows:
        envelope = rows.log.last_head()
    assert envelope is not None
    head = Head.parse(envelope.body())
    assert (world.catalog.snapshot().size, world.catalog.snapshot().root) == (head.size, head.root)


def test_making_it_leaves_the_collector_as_it_was(world: World) -> None:
    body = encode(world.catalog.snapshot())
    assert gc.isenabled()
    with pytest.raises(InvalidDocument):
        parse(body[:-1])
    assert gc.isenabled()
    gc.disable()
    try:
        parse(body)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_reader_that_knows_more_than_the_log_is_told_so(world: World) -> None:
    with pytest.raises(LogTruncated):
        world.catalog.changes(world.catalog.snapshot().size + 1)


def test_another_process_changes_are_seen(world: World) -> None:
    world.catalog.snapshot()
    other = LocalCatalog(
        database=world.database, blobs=world.blobs, signer=signer("log"), clock=ManualClock()
    )
    other.create_tenant(Tenant(id="saas_c", display_name="C"), actor="test")
    assert "saas_c" in {tenant.id for tenant in world.catalog.snapshot().tenants}


def test_readers_during_writes_see_whole_changes(world: World) -> None:
    """A routes change names a policy published just before: no reader may see the one without the other."""
    stop, faults = threading.Event(), []

    def read() -> None:
        last = 0
        while not stop.is_set():
            snapshot = world.catalog.snapshot()
            if (
                any(
                    route.policy not in snapshot.policies
                    for routing in snapshot.routings
                    for route in routing.routes
                )
                or snapshot.size < last
            ):
                faults.append(snapshot)
            last = snapshot.size

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(20):
        policy = world.policy(schema=f'{{"maxLength": {number}}}')
        world.catalog.publish_routing("bank_a", routes=[route(policy)], actor="test")
    stop.set()
    for reader in readers:
        reader.join()
    assert faults == []


def test_entries_come_in_pages(world: World) -> None:
    size = world.catalog.snapshot().size
    assert [entry.index for entry in world.catalog.entries()] == list(range(size))
    assert [entry.index for entry in world.catalog.entries(2, 3)] == [2, 3, 4]
    assert world.catalog.entries(size) == ()
    for start, limit in ((-1, 1), (0, -1), (0, 10_001)):
        with pytest.raises(InvalidInput):
            world.catalog.entries(start, limit)


def test_only_a_log_key_signs_the_log(world: World) -> None:
    with pytest.raises(InvalidInput, match="log key"):
        LocalCatalog(database=world.database, blobs=world.blobs, signer=signer("router"), clock=ManualClock())


def test_the_same_changes_give_the_same_log(tmp_path_factory: pytest.TempPathFactory) -> None:
    roots: set[Digest] = set()
    for number in range(2):
        world = open_world(tmp_path_factory.mktemp(f"world{number}"), entropy=bytes)
        world.promoted()
        roots.add(world.catalog.snapshot().root)
        world.database.close()
    assert len(roots) == 1


def test_a_reader_between_two_transactions_is_told_everything() -> None:
    """No head was signed there, so nobody can have been told of that place; still it misses nothing."""
    with begun() as history:
        assert history.changes(1) == history.snapshot()
        with pytest.raises(LogForked):
            history.changes(1, Digest.of(b"some root"))


def test_who_is_far_behind_is_told_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    with begun() as history:
        start = history.snapshot()
        history.take([change_tenant("bank_a", number % 2 == 0) for number in range(4)])
        assert isinstance(history.changes(*start.position), Delta)
        monkeypatch.setattr(feed, "MOST_ENTRIES", 3)
        assert history.changes(*start.position) == history.snapshot()


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("keys", "role", "owner"),
        ("tenants", "quota", '{}},{"id":"x"'),
        ("policies", "document", "{}"),
        ("versions", "base", "nothing"),
        ("aliases", "canaries", "["),
        ("engines", "document", "[]"),
    ],
)
def test_a_row_that_cannot_be_trusted_is_not_handed_out(
    world: World, table: str, column: str, value: str
) -> None:
    world.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    world.policy()
    world.promoted()
    world.catalog.announce(world.engine(), actor="test")
    world.catalog.snapshot()
    with closing(sqlite3.connect(world.file)) as file, file:
        file.execute(f"UPDATE {table} SET {column} = ?", [value])
    with pytest.raises(StoreCorrupt):
        world.catalog.snapshot()
