"""The databases that a registry can be on; tests that take ``store`` run on each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.store.database import Database
from registry.store.port import Store
from registry.store.postgres import PostgresDatabase
from tests.support.postgres import PostgresServer

KINDS = ("sqlite", "postgresql")


@contextmanager
def fresh(
    kind: str, folder: Path, server: Callable[[], PostgresServer], *, migrated: bool = True
) -> Iterator[str]:
    """Where a new store is, for :func:`connect` in any process; ``server`` is asked only if it is needed."""
    if kind == "postgresql":
        with server().database(migrated=migrated) as url:
            yield url
        return
    path = folder / "registry.db"
    if migrated:
        with Database(path) as database:
            database.migrate("head")
    yield str(path)


def connect(address: str, *, busy_timeout: float = 20) -> Store:
    if address.startswith("postgresql://"):
        return PostgresDatabase(address, busy_timeout=busy_timeout)
    return Database(Path(address), busy_timeout=busy_timeout)


def is_sqlite(address: str) -> bool:
    return not address.startswith("postgresql://")
