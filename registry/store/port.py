"""What the catalog needs of a database, whichever it is."""

from contextlib import AbstractContextManager
from typing import Protocol

from registry.store.transaction import Transaction


class Store(Protocol):
    """Implementations: ``registry.store.database`` (SQLite), ``registry.store.postgres`` (PostgreSQL).

    Making one touches nothing; safe to share between threads.
    """

    def read(self) -> AbstractContextManager[Transaction]:
        """One consistent view of everything; writing in it fails."""
        ...

    def write(self) -> AbstractContextManager[Transaction]:
        """All or nothing, one at a time over all processes: what was read in it cannot change any more.

        Raises StoreBusy when others write for too long.
        """
        ...

    def aside(self) -> AbstractContextManager[Transaction]:
        """All or nothing, for rows that stand beside the log: nobody waits for the log's writers, and others
        write at the same time, so each statement must be right whatever they do."""
        ...

    def within(self, tenant: str) -> "Store":
        """The same database; where it has row-level security, nothing but this tenant's rows is there."""
        ...

    def check(self) -> None:
        """Raises WorkspaceNotFound, SchemaOutdated, StoreUnsuitable or StoreCorrupt now rather than at the
        first request."""
        ...

    def migrate(self, revision: str) -> None:
        """To ``revision`` (``head``, ``base`` or an id), all or nothing; safe to run twice and at once."""
        ...

    def close(self) -> None: ...
