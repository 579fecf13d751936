"""Which bytes a tenant's versions are made of: asked before each upload, by digest, a thousand at a time."""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, event, insert

from registry.digests import Digest
from registry.store.rows import VersionRow
from tests.support.registries import NAME, World, open_world

VERSIONS, ASKED = 5_000, 1_000


def test_a_thousand_digests_among_five_thousand_versions(store: str, tmp_path: Path) -> None:
    """The work of one pass, not of a thousand: one query each took 4 s on SQLite and 8 s on PostgreSQL."""
    world = open_world(tmp_path, store=store)
    blobs = _crowd(world)
    asked = [*blobs[:: VERSIONS // 10], *(Digest.of(b"nothing %d" % number) for number in range(ASKED - 10))]
    statements: list[str] = []
    note: Callable[..., None] = lambda *said: statements.append(said[2])  # noqa: E731 (to be taken off again)
    event.listen(Engine, "before_cursor_execute", note)
    try:
        for wanted in (asked, asked[-1:], blobs[-1:]):
            statements.clear()
            assert world.catalog.named_blobs("bank_a", wanted) == set(wanted) & set(blobs)
            assert sum("SELECT" in statement for statement in statements) <= 4, statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)
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
