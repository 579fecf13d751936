"""The databases, opened by functions that other processes can be handed, and one copied into another."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from registry.store.database import Database
from registry.store.port import Store
from registry.store.postgres import PostgresDatabase
from registry.store.rows import Row
from registry.store.transaction import Transaction

_TOGETHER = 1000

Opening: TypeAlias = Callable[[], AbstractContextManager[Store]]


@contextmanager
def sqlite(file: Path) -> Iterator[Store]:
    with Database(file) as opened:
        yield opened


@contextmanager
def postgresql(url: str) -> Iterator[Store]:
    with PostgresDatabase(url) as opened:
        yield opened


def copied(source: Store, target: Store) -> None:
    """All rows of ``source``, as they are, in one transaction.

    Filling PostgreSQL entry by entry takes 20 minutes, of which nothing is measured: the rows are the same,
    and the log that it then holds is the one that was signed.
    """
    with source.read() as read, target.write() as written:
        for table in Row.metadata.sorted_tables:
            rows = _connection(read).execute(table.select())
            for some in rows.mappings().partitions(_TOGETHER):
                _connection(written).execute(table.insert(), [dict(row) for row in some])


def _connection(rows: Transaction) -> Any:
    return rows._session.connection()
