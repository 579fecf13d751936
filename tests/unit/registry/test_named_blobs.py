"""Which bytes a tenant's versions are made of: asked before each upload, by digest, a thousand at a time."""

import time
from pathlib import Path

from sqlalchemy import insert

from registry.digests import Digest
from registry.store.rows import VersionRow
from tests.support.registries import NAME, World, open_world

VERSIONS, ASKED = 5_000, 1_000


def test_a_thousand_digests_among_five_thousand_versions(store: str, tmp_path: Path) -> None:
    """The work of one pass, not of a thousand: one query each took 4 s on SQLite and 8 s on PostgreSQL."""
    world = open_world(tmp_path, store=store)
    blobs = _crowd(world)
    asked = [*blobs[:: VERSIONS // 10], *(Digest.of(b"nothing %d" % number) for number in range(ASKED - 10))]
    for wanted, limit_ms in ((asked, 600), (asked[-1:], 100), (blobs[-1:], 100)):
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            named = world.catalog.named_blobs("bank_a", wanted)
            best = min(best, (time.perf_counter() - start) * 1000)
        assert named == set(wanted) & set(blobs)
        assert best < limit_ms, f"{len(wanted)} digests took {best:.0f} ms"
    assert world.catalog.named_blobs("bank_a", []) == frozenset()
    assert world.catalog.named_blobs("retail_b", asked) == frozenset()
    world.database.close()


def _crowd(world: World) -> list[Digest]:
    """Versions of bank_a, each with weights of its own: their digests."""
    first = world.catalog.manifest(world.push(NAME))
    rows, blobs = [], []
    for number in range(VERSIONS):
        weights = Digest.of(b"weights %d" % number)
        files = (first.files[0], first.files[1].model_copy(update={"digest": weights}))
        manifest = first.model_copy(update={"files": files})
        blobs.append(weights)
        rows.append(
            {
                "digest": manifest.identity(), "base": manifest.base, "rank": 4, "tenant": "bank_a",
                "adapter": NAME.adapter, "manifest": manifest.canonical().decode(), "pushed": 1000 + number,
                "pushed_at": "2026-01-01T00:00:00.000000Z", "revoked": False, "entry": 1000 + number,
            }
        )  # fmt: skip
    with world.database.write() as transaction:
        transaction._session.connection().execute(insert(VersionRow), rows)
    return blobs
