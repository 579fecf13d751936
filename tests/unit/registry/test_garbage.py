"""What a collection removes, and above all what it never does."""

import io
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.blobs.filesystem import FilesystemBlobs
from registry.blobs.memory import InMemoryBlobs, InMemoryShelf
from registry.blobs.s3 import S3Blobs
from registry.blobs.s3_shelf import S3Shelf
from registry.blobs.shelf import FilesystemShelf
from registry.blobs.uploads import Uploads
from registry.catalog.garbage import GRACE, Collection, collect, named_by
from registry.clock import ManualClock
from registry.digests import Digest
from registry.errors import InvalidInput
from registry.manifests import Provenance
from registry.names import AdapterName
from registry.ports import BlobStore, Leftovers
from registry.store.errors import ScopeViolated
from tests.support.adapters import tiny_base, write_adapter
from tests.support.postgres import PostgresServer
from tests.support.registries import NAME, World, open_world
from tests.support.s3 import S3Server

HOUR = 3600.0
DAY = 24 * HOUR
OTHER = AdapterName("retail_b", "assistant")


class Bench:
    def __init__(self, folder: Path, blobs: BlobStore, uploads: Uploads, clock: ManualClock) -> None:
        self.blobs, self.uploads, self.clock = blobs, uploads, clock
        self.world: World = open_world(folder, blobs=blobs, clock=clock)

    def collect(self, *, delete: bool = True) -> Collection:
        return collect(self.world.database, self.blobs, self.uploads, clock=self.clock, delete=delete)

    def blobs_of(self, version: Digest) -> set[Digest]:
        return set(named_by(self.world.catalog.manifest(version)))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    clock = ManualClock()
    blobs = InMemoryBlobs(clock)
    bench = Bench(tmp_path, blobs, Uploads(InMemoryShelf(clock), blobs), clock)
    yield bench
    bench.world.database.close()


def stray(bench: Bench, data: bytes = b"stray") -> Digest:
    return bench.blobs.put(io.BytesIO(data))[0]


def test_what_no_version_names_goes_after_the_grace(bench: Bench) -> None:
    version = bench.world.push()
    digest = stray(bench)
    bench.clock.advance(DAY)
    assert bench.collect().removed == ()
    bench.clock.advance(1)
    found = bench.collect(delete=False)
    assert [item.digest for item in found.removed] == [digest]
    assert bench.blobs.has(digest)
    assert bench.collect() == found
    assert not bench.blobs.has(digest)
    assert set(bench.blobs.digests()) == bench.blobs_of(version)
    assert found.kept.count == len(bench.blobs_of(version))
    assert bench.collect().removed == ()


def test_what_is_put_again_or_renewed_stays(bench: Bench) -> None:
    first, second = stray(bench, b"1"), stray(bench, b"2")
    bench.clock.advance(DAY + 1)
    stray(bench, b"1")
    bench.blobs.renew(second)
    assert bench.collect().removed == ()
    assert bench.blobs.has(first)


def test_a_shared_blob_stays_while_anybody_names_it(bench: Bench) -> None:
    """The contract and the config are the same bytes in both tenants' versions."""
    mine, theirs = bench.world.push(seed=1), bench.world.push(OTHER, seed=2)
    bench.world.catalog.revoke(mine, reason="wrong data", actor="test")
    bench.clock.advance(DAY + 1)
    removed = {item.digest for item in bench.collect().removed}
    assert removed == bench.blobs_of(mine) - bench.blobs_of(theirs)
    assert set(bench.blobs.digests()) == bench.blobs_of(theirs)
    assert len(removed) == 2  # weights and fingerprint


def test_a_revoked_version_stays_for_the_grace(bench: Bench) -> None:
    version = bench.world.push()
    bench.clock.advance(30 * DAY)
    bench.world.catalog.revoke(version, reason="wrong data", actor="test")
    bench.clock.advance(DAY)
    assert bench.collect().removed == ()
    bench.clock.advance(1)
    assert {item.digest for item in bench.collect().removed} == bench.blobs_of(version)


@pytest.mark.parametrize("up", [True, False])
def test_a_revoked_version_stays_while_an_engine_holds_it(bench: Bench, up: bool) -> None:
    version = bench.world.push()
    bench.world.catalog.announce(bench.world.engine(), actor="test")
    bench.world.catalog.attest(bench.world.attestation(version), actor="test")
    (slot,) = bench.world.catalog.slots()
    bench.world.catalog.revoke(version, reason="wrong data", actor="test")
    if not up:
        bench.world.catalog.announce(bench.world.engine(up=False), actor="test")
    with bench.world.database.write() as rows:  # as if the engine had not let go of it
        rows.engines.put_slot(slot, entry=1)
    bench.clock.advance(30 * DAY)
    assert bool(bench.collect().removed) is not up


def test_abandoned_uploads_and_stale_claims_go_too(bench: Bench) -> None:
    data = b"uploaded and never published"
    digest = Digest.of(data)
    bench.uploads.whole("bank_a", digest, io.BytesIO(data))
    bench.uploads.begin("bank_a", Digest.of(b"half"), 4)
    bench.uploads.append("bank_a", Digest.of(b"half"), 0, io.BytesIO(b"ha"))
    bench.clock.advance(DAY)
    assert bench.collect() == Collection((), Leftovers(1, len(data)), Leftovers(0, 0), Leftovers(0, 0), 0)
    bench.clock.advance(1)
    found = bench.collect()
    assert (len(found.removed), found.uploads, found.claims) == (1, Leftovers(1, 2), 1)
    assert not bench.uploads.claims.has("bank_a", digest)
    assert bench.uploads.begin("bank_a", digest, len(data)) == 0


def test_a_grace_too_short_for_a_push_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidInput):
        collect(
            bench.world.database,
            bench.blobs,
            bench.uploads,
            clock=bench.clock,
            grace=timedelta(minutes=59),
        )


def test_a_clock_that_goes_backwards_removes_nothing(bench: Bench) -> None:
    stray(bench)
    bench.clock.advance(-30 * DAY)
    assert bench.collect().removed == ()


def test_verification_does_not_miss_what_a_revoked_version_had(bench: Bench) -> None:
    version = bench.world.push()
    bench.world.catalog.revoke(version, reason="wrong data", actor="test")
    bench.clock.advance(DAY + 1)
    assert bench.collect().removed
    assert bench.world.catalog.verify(blobs=True) == []


def test_a_blob_is_named_by_a_tenant_only_if_its_version_is_made_of_it(bench: Bench) -> None:
    """A digest in the provenance is the trainer's word, and must not open another tenant's bytes."""
    foreign = bench.world.push(OTHER, seed=2)
    weights = bench.world.catalog.manifest(foreign).files[1].digest
    base, _ = tiny_base()
    mine = bench.world.catalog.push(
        NAME,
        write_adapter(bench.world.folder / "peft", base, seed=3),
        base=bench.world.base,
        fingerprint=None,
        provenance=Provenance(method="upload", parent=weights, inputs={"teacher": weights}),
        actor="test",
    )
    assert bench.world.catalog.named_blobs("retail_b", [weights])
    assert not bench.world.catalog.named_blobs("bank_a", [weights])
    for digest in bench.blobs_of(mine):
        assert bench.world.catalog.named_blobs("bank_a", [digest])
    assert not bench.world.catalog.named_blobs("bank_a", [Digest.of(b"nothing")])


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 3)),
        st.tuples(st.just("revoke"), st.integers(0, 3)),
        st.tuples(st.just("stray"), st.integers(0, 3)),
        st.tuples(st.just("upload"), st.integers(0, 3)),
        st.tuples(st.just("wait"), st.integers(0, 40)),
        st.tuples(st.just("collect"), st.just(0)),
    ),
    max_size=14,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_nothing_reachable_is_ever_removed(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int]]
) -> None:
    clock = ManualClock()
    blobs = InMemoryBlobs(clock)
    folder = tmp_path_factory.mktemp("garbage")
    bench = Bench(folder, blobs, Uploads(InMemoryShelf(clock), blobs), clock)
    pushed: dict[int, Digest] = {}
    revoked: dict[Digest, datetime] = {}
    young: dict[Digest, datetime] = {}
    try:
        for action, number in [*actions, ("collect", 0)]:
            if action == "push" and pushed.get(number) not in revoked:
                pushed[number] = bench.world.push((NAME, OTHER)[number % 2], seed=number)
                young |= dict.fromkeys(bench.blobs_of(pushed[number]), clock.now())
            elif action == "revoke" and number in pushed:
                bench.world.catalog.revoke(pushed[number], reason="test", actor="test")
                revoked.setdefault(pushed[number], clock.now())
            elif action == "stray":
                young[stray(bench, bytes([number]))] = clock.now()
            elif action == "upload":
                data = b"upload %d" % number
                bench.uploads.whole("bank_a", Digest.of(data), io.BytesIO(data))
                young[Digest.of(data)] = clock.now()
            elif action == "wait":
                clock.advance(number * HOUR)
            elif action == "collect":
                bench.collect()
                reachable = {digest for digest, at in young.items() if clock.now() - at <= GRACE}
                for version in pushed.values():
                    if version not in revoked or clock.now() - revoked[version] <= GRACE:
                        reachable |= bench.blobs_of(version)
                assert set(blobs.digests()) == reachable
                for digest in reachable:
                    blobs.read(digest)
    finally:
        bench.world.database.close()


@pytest.mark.parametrize("kind", ["filesystem", "s3"])
def test_pushes_beside_collections_lose_nothing(tmp_path: Path, kind: str, s3: S3Server) -> None:
    """The blobs have lain there for ever; some threads push them as versions, over and over, while one
    collects over and over."""
    blobs: BlobStore
    if kind == "filesystem":
        blobs, uploads = (
            FilesystemBlobs(tmp_path / "blobs"),
            Uploads(FilesystemShelf(tmp_path / "blobs"), FilesystemBlobs(tmp_path / "blobs")),
        )
    else:
        place = s3.place()
        blobs = S3Blobs(place, renew_after=0)
        uploads = Uploads(S3Shelf(place), blobs)
    bench = Bench(tmp_path, blobs, uploads, ManualClock(datetime.now(UTC)))
    base, _ = tiny_base()
    rounds, count = (6, 4) if kind == "filesystem" else (2, 3)
    folders = [write_adapter(tmp_path / f"peft-{n}", base, seed=n) for n in range(count)]
    contents = [(folder / "adapter_model.safetensors").read_bytes() for folder in folders]
    for data in contents:  # the blobs of a push that was given up long ago
        blobs.put(io.BytesIO(data))
    if kind == "filesystem":
        for path in (tmp_path / "blobs" / "sha256").rglob("*"):
            os.utime(path, (0, 0))
    else:
        from tests.support.s3 import aged, keys

        for key in keys(place, "sha256/"):
            aged(place, key)
    done = threading.Event()
    faults: list[BaseException] = []

    def push(number: int) -> None:
        try:
            for _ in range(rounds):
                bench.world.catalog.push(
                    AdapterName("bank_a", f"adapter-{number}"),
                    folders[number],
                    base=bench.world.base,
                    fingerprint=None,
                    provenance=Provenance(method="upload"),
                    actor="test",
                )
        except BaseException as error:
            faults.append(error)

    def sweep() -> None:
        try:
            while not done.is_set():
                bench.collect()
        except BaseException as error:
            faults.append(error)

    collector = threading.Thread(target=sweep)
    pushers = [threading.Thread(target=push, args=(number,)) for number in range(count)]
    for thread in (collector, *pushers):
        thread.start()
    for thread in pushers:
        thread.join()
    done.set()
    collector.join()
    bench.clock.advance(365 * DAY)
    bench.collect()
    assert faults == []
    for name in bench.world.catalog.adapters():
        for summary in bench.world.catalog.versions(name):
            for digest in bench.blobs_of(summary.version):
                blobs.read(digest)
    assert len(bench.world.catalog.adapters()) == count
    bench.world.database.close()


def test_on_each_kind_of_database(store: str, tmp_path: Path) -> None:
    clock = ManualClock()
    blobs = InMemoryBlobs(clock)
    uploads = Uploads(InMemoryShelf(clock), blobs)
    world = open_world(tmp_path, store=store, blobs=blobs, clock=clock)
    kept, revoked = world.push(seed=1), world.push(OTHER, seed=2)
    world.catalog.revoke(revoked, reason="wrong data", actor="test")
    stay = set(named_by(world.catalog.manifest(kept)))
    clock.advance(DAY + 1)
    found = world.catalog.collect(blobs, uploads, clock=clock, delete=True)
    assert len(found.removed) == 2
    assert set(blobs.digests()) == stay
    (weights,) = (ref.digest for ref in world.catalog.manifest(kept).files if "safetensors" in ref.path)
    assert world.catalog.named_blobs("bank_a", [weights])
    assert not world.catalog.named_blobs("retail_b", [weights])
    world.database.close()


def test_a_store_that_shows_one_tenant_only_is_refused(postgres: PostgresServer, tmp_path: Path) -> None:
    """Everybody else's blobs would be garbage to it."""
    with postgres.database() as url:
        clock = ManualClock()
        blobs = InMemoryBlobs(clock)
        world = open_world(tmp_path, store=url, blobs=blobs, clock=clock)
        world.push(OTHER)
        clock.advance(DAY + 1)
        with pytest.raises(ScopeViolated):
            collect(
                world.database.within("bank_a"),
                blobs,
                Uploads(InMemoryShelf(clock), blobs),
                clock=clock,
                delete=True,
            )
        assert len(list(blobs.digests())) == 4
        world.database.close()
