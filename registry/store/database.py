"""The SQLite file: connections, transactions, revision.

Several processes use it at once: the control plane, and every run of the CLI.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, event, exc
from sqlalchemy.pool import QueuePool, StaticPool
from sqlmodel import Session

from registry.errors import WorkspaceNotFound
from registry.names import parse_name
from registry.store import revision as revisions
from registry.store.errors import StoreBusy, StoreConflict, StoreCorrupt, StoreUnavailable
from registry.store.port import Store
from registry.store.rows import Row
from registry.store.transaction import Transaction
from registry.store.turns import Turns

BUSY_TIMEOUT = 10.0
"""Seconds a writer waits for another one; a write takes milliseconds, so longer means something hangs."""
_READERS = 8


class Database:
    """Opens lazily: making one touches nothing, every transaction checks the file and its revision."""

    def __init__(self, path: Path, *, busy_timeout: float = BUSY_TIMEOUT) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        # One writer a process: its threads then queue here, in order, and not in SQLite's polling.
        self._writer = self._engine("BEGIN IMMEDIATE", pool_size=1, query_only=False)
        self._reader = self._engine("BEGIN", pool_size=_READERS, query_only=True)
        self._writing = Turns(1, patience=busy_timeout)
        self._reading = Turns(_READERS, patience=busy_timeout)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """One consistent view of everything; writing in it fails."""
        with self._reading.turn(), translated(), Session(self._reader) as session:
            _check_revision(session)
            yield Transaction(session)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """All or nothing, one at a time over all processes. Raises StoreBusy after the busy timeout."""
        with self._writing.turn(), translated(), Session(self._writer) as session:
            session.connection()  # BEGIN IMMEDIATE happens here: what is read next cannot change any more
            _check_revision(session)
            yield Transaction(session)
            session.commit()

    def aside(self) -> AbstractContextManager[Transaction]:
        """SQLite knows one writer: nothing stands beside it."""
        return self.write()

    def within(self, tenant: str) -> "Database":
        """SQLite has no row-level security: what keeps tenants apart here is every query's own condition."""
        parse_name(tenant, "tenant")
        return self

    def check(self) -> None:
        """Raises WorkspaceNotFound, SchemaOutdated or StoreCorrupt now rather than at the first request."""
        with self.read():
            pass

    def close(self) -> None:
        self._writer.dispose()
        self._reader.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def migrate(self, revision: str) -> None:
        """To ``revision`` (``head``, ``base`` or an id), in one transaction; makes the file when needed."""
        from registry.store import migrate  # noqa: PLC0415 (alembic is slow to import and seldom needed)

        if not self._path.exists() and not self._path.parent.is_dir():
            raise WorkspaceNotFound("the folder of the database does not exist")
        # 0600: it holds the hashes of keys. An existing file keeps its mode.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with self._writing.turn(), translated(), self._writer.connect() as connection:
            migrate.run(connection, revision)
            connection.commit()

    def _engine(self, begin: str, *, pool_size: int, query_only: bool) -> Engine:
        engine = create_engine(
            "sqlite+pysqlite://",
            creator=lambda: _connect(self._path, self._busy_timeout, query_only=query_only),
            poolclass=QueuePool,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=self._busy_timeout,
        )
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine


def upgrade(store: Store) -> None:
    """Bring the schema to the newest revision. Safe to run twice and at once."""
    store.migrate("head")


@contextmanager
def scratch() -> Iterator[Transaction]:
    """Empty tables in memory, gone afterwards: where ``verify`` replays the log."""
    engine = create_engine("sqlite+pysqlite://", poolclass=StaticPool)
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
    try:
        Row.metadata.create_all(engine)
        with translated(), Session(engine) as session:
            yield Transaction(session)
    finally:
        engine.dispose()


def _connect(path: Path, busy_timeout: float, *, query_only: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        # Never makes a file: a wrong path must not look like an empty registry.
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,  # we say BEGIN ourselves: sqlite3 would say it too late and only for writes
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        # FULL, not NORMAL: what was acknowledged survives a power cut. Costs one fsync a commit.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_mode = WAL")
        if query_only:
            connection.execute("PRAGMA query_only = ON")
    except UnicodeDecodeError:  # of SQLite's own message, which quotes the file
        connection.close()
        raise sqlite3.DatabaseError("Could not decode what is wrong with the file") from None
    except BaseException:
        connection.close()
        raise
    return connection


def _check_revision(session: Session) -> None:
    try:
        rows = session.connection().exec_driver_sql("SELECT version_num FROM alembic_version").all()
    except exc.OperationalError as error:
        if _primary_code(error) != sqlite3.SQLITE_ERROR:  # anything but "no such table"
            raise
        rows = []
    revisions.require(str(row[0]) for row in rows)


@contextmanager
def translated() -> Iterator[None]:
    """SQLite's and the pool's own troubles as errors with a code; everything else passes unchanged."""
    try:
        yield
    except exc.TimeoutError:
        raise StoreBusy("no database connection became free in time") from None
    except exc.IntegrityError as error:
        raise StoreConflict(f"the change contradicts what is stored: {error.orig}") from error
    except exc.DatabaseError as error:
        raise _meaning(error) from error
    except sqlite3.DatabaseError as error:  # while connecting
        raise _meaning(error) from error


def _meaning(error: exc.DatabaseError | sqlite3.DatabaseError) -> Exception:
    code = _primary_code(error)
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreBusy("the database stayed locked by another process")
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return StoreCorrupt("the database file is damaged, or is no database")
    if code == sqlite3.SQLITE_CANTOPEN:
        return WorkspaceNotFound("there is no database here")
    if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY}:
        return StoreUnavailable("the database cannot be written")
    if "Could not decode" in str(error):  # Python's own layer, about a text whose bytes are none
        return StoreCorrupt("the database holds text that cannot be read")
    return error


def _primary_code(error: exc.DatabaseError | sqlite3.DatabaseError) -> int:
    """SQLite's result code without its extension; 0 when Python's own layer raised."""
    origin = error.orig if isinstance(error, exc.DatabaseError) else error
    return int(getattr(origin, "sqlite_errorcode", 0)) & 0xFF
