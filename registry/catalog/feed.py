"""What the data plane is told: all of it as of one log index, or what changed since an earlier one."""

from registry.catalog.errors import LogTruncated
from registry.digests import Digest
from registry.errors import LogForked
from registry.feed import Delta, Position, Snapshot, encode, encode_parts, uncollected
from registry.log.ledger import root_of
from registry.store.tables.feed import FeedTable
from registry.store.transaction import Transaction

MOST_ENTRIES = 5000
"""A reader further behind than this is told everything: the whole tables are then read faster than their
indexes (measured at 10,000 tenants)."""


def position(rows: Transaction) -> Position:
    """The end of the log. Raises LogCorrupt when it does not fit its frontier."""
    frontier = rows.log.frontier()
    return Position(frontier.size, root_of(frontier))


def snapshot(rows: Transaction) -> Snapshot:
    """Within one read transaction, so that size, root and state belong together.

    Raises StoreCorrupt or LogCorrupt rather than hand out a row that cannot be trusted.
    """
    end, feed = position(rows), rows.feed
    with uncollected():
        # Not built anew: every document was checked when it was read.
        return Snapshot.model_construct(
            size=end.size,
            root=end.root,
            tenants=feed.tenants(),
            keys=feed.keys(),
            bases=feed.bases(),
            policies=feed.policies(),
            routings=feed.routings(),
            aliases=feed.aliases(),
            preparations=feed.preparations(),
            versions=feed.versions(),
            engines=feed.engines(),
            slots=feed.slots(),
        )


def changes(rows: Transaction, after: int, root: Digest | None) -> Snapshot | Delta | None:
    """What a reader that stands at ``after`` is to be told; None when the log ends there.

    ``root``: of the log that the reader knows, if it says. Raises LogTruncated and LogForked for a reader
    that knows what this log does not: a snapshot would make it forget what it saw.
    """
    end = position(rows)
    known = _known(rows, after, root, end)
    if known == end:
        return None
    return snapshot(rows) if known is None else _delta(rows.feed, known, end)


def told(rows: Transaction, after: int, root: Digest | None) -> bytes | None:
    """:func:`changes` as it is sent; of a snapshot, only a small part is in memory as documents."""
    end = position(rows)
    known = _known(rows, after, root, end)
    if known == end:
        return None
    if known is not None:
        return encode(_delta(rows.feed, known, end))
    with uncollected():
        return encode_parts(end, rows.feed.everything())


def _known(rows: Transaction, after: int, root: Digest | None, end: Position) -> Position | None:
    """Where the reader stands, when it can be told by a delta; ``end`` when there is nothing to tell."""
    if after > end.size:
        raise LogTruncated(f"the reader has seen {after} entries and the log has {end.size}")
    if after <= 0:
        return None
    known = end.root if after == end.size else rows.feed.root_at(after)
    if root is not None and known != root:
        raise LogForked(f"the first {after} entries of this log are not those that the reader has seen")
    if known is None or end.size - after > MOST_ENTRIES:
        return None
    return Position(after, known)


def _delta(feed: FeedTable, known: Position, end: Position) -> Delta:
    since = known.size
    engines = feed.engines(since)
    # Slots also end with a revoked version: which ones, the reader knows itself.
    moved = {engine.engine for engine in engines} | feed.reattested(since)
    return Delta(
        after=known.size,
        follows=known.root,
        size=end.size,
        root=end.root,
        tenants=feed.tenants(since),
        keys=feed.keys(since),
        bases=feed.bases(since),
        policies=feed.policies(since),
        routings=feed.routings(since),
        aliases=feed.aliases(since),
        preparations=feed.preparations(since),
        versions=feed.versions(since),
        engines=engines,
        slots=feed.slots_of(moved),
    )
