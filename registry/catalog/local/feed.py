"""The state as routers and agents follow it."""

from registry.catalog import feed
from registry.catalog.local.part import Part
from registry.digests import Digest
from registry.feed import Delta, Position, Snapshot


class Feed(Part):
    def position(self) -> Position:
        """The end of the log."""
        with self._database.read() as rows:
            return feed.position(rows)

    def log_size(self) -> int:
        """What tells readers whether there is news, for one small query."""
        with self._database.read() as rows:
            return rows.feed.size()

    def snapshot(self) -> Snapshot:
        with self._database.read() as rows:
            return feed.snapshot(rows)

    def changes(self, after: int, root: Digest | None = None) -> Snapshot | Delta | None:
        """See :func:`registry.catalog.feed.changes`; ``after`` below 1 asks for everything."""
        with self._database.read() as rows:
            return feed.changes(rows, after, root)

    def told(self, after: int, root: Digest | None = None) -> bytes | None:
        """:meth:`changes` as they are sent to readers."""
        with self._database.read() as rows:
            return feed.told(rows, after, root)
