"""What the control plane does for those who follow it, over HTTP as they do."""

import asyncio
import gzip
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.registry import population
from bench.registry.stores import Opening
from bench.registry.timing import Spread, seconds, spread
from registry.blobs.memory import InMemoryBlobs, InMemoryShelf
from registry.blobs.uploads import Uploads
from registry.catalog.local.catalog import LocalCatalog
from registry.clock import ManualClock, SystemClock
from registry.digests import Digest
from registry.feed import Snapshot, encode
from registry.models import Tenant
from registry.store.port import Store
from router.feed import Feed
from router.limits import Freshness
from server.api.app import create_app
from server.api.client import ControlClient
from server.api.control import Control
from tests.support.registries import signer
from tests.support.remote import SERVICE_TOKEN, serving


@contextmanager
def control(store: Store) -> Iterator[tuple[LocalCatalog, str]]:
    """The control API on loopback, in this process."""
    blobs = InMemoryBlobs()
    catalog = LocalCatalog(database=store, blobs=blobs, signer=signer("log"), clock=SystemClock())
    uploads = Uploads(InMemoryShelf(ManualClock()), blobs)
    app = create_app(Control(catalog=catalog, blobs=blobs, uploads=uploads, service_token=SERVICE_TOKEN))
    with serving(app) as url:
        yield catalog, url


def snapshot(catalog: LocalCatalog) -> tuple[dict[str, float], bytes]:
    """Seconds and megabytes of everything at once, and its bytes."""
    reading, body = seconds(lambda: catalog.told(-1))
    assert body is not None
    packing, packed = seconds(lambda: gzip.compress(body, compresslevel=1))
    return {
        "read s": reading,
        "gzip s": packing,
        "all s": reading + packing,
        "MB": len(body) / 1e6,
        "MB on the wire": len(packed) / 1e6,
    }, body


def snapshot_bytes(opening: Opening) -> bytes:
    """For a process of its own, whose memory is measured."""
    with opening() as store:
        catalog = LocalCatalog(
            database=store, blobs=InMemoryBlobs(), signer=signer("log"), clock=SystemClock()
        )
        body = catalog.told(-1)
        assert body is not None
        return gzip.compress(body, compresslevel=1)


def delta(catalog: LocalCatalog) -> tuple[Spread, Spread, float]:
    """(ms of a delta of one change, ms of "nothing new", bytes of that delta)."""
    before = catalog.position()
    catalog.create_tenant(Tenant(id="newcomer", display_name="N"), actor="bench")
    told = catalog.changes(*before)
    assert told is not None
    one = spread(lambda _: catalog.changes(*before), 50, scale=1e3)
    end = catalog.position()
    none = spread(lambda _: catalog.changes(*end), 50, scale=1e3)
    return one, none, float(len(encode(told)))


async def revocations(catalog: LocalCatalog, url: str, times: int = 20) -> dict[str, float]:
    """Seconds until a router has everything, and milliseconds from a key's revocation in the registry to the
    tables of a router that refuse it: the router's own feed, over HTTP."""
    async with ControlClient(url, SERVICE_TOKEN) as client:
        feed = Feed(client, freshness=Freshness.within(30), ticks=time.monotonic)
        began = time.perf_counter()
        await feed.start()
        while feed.latest is None:  # noqa: ASYNC110 (a feed tells nobody but its requests)
            await asyncio.sleep(0.01)
        first = time.perf_counter() - began
        samples = []
        for number in range(times):
            identity, secret = population.key_of(number, 1)
            hashed = Digest.of(secret.encode())
            await asyncio.to_thread(catalog.revoke_key, identity, actor="bench")
            began = time.perf_counter()
            while (key := feed.tables().key(hashed)) is None or not key.revoked:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            samples.append((time.perf_counter() - began) * 1e3)
        await feed.stop()
    found = Spread.of(samples)
    return {"first state s": first, "revoked ms p50": found.p50, "revoked ms most": found.most}


def tenants_first(snapshot: Snapshot, tenants: int) -> Snapshot:
    """The same registry as if it had fewer tenants, to see what depends on how many there are."""
    kept = {tenant.id for tenant in snapshot.tenants[:tenants]}
    return snapshot.model_copy(
        update={
            "tenants": snapshot.tenants[:tenants],
            "keys": tuple(key for key in snapshot.keys if key.tenant in kept),
            "policies": {key: found for key, found in snapshot.policies.items() if found.tenant in kept},
            "routings": tuple(routing for routing in snapshot.routings if routing.tenant in kept),
            "aliases": tuple(alias for alias in snapshot.aliases if alias.tenant in kept),
            "versions": tuple(version for version in snapshot.versions if version.tenant in kept),
        }
    )
