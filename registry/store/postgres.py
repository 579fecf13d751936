"""PostgreSQL 15 or newer: connections, transactions, scope, revision.

Any number of processes may use it at once. Every transaction says whose rows it may see, so that a query that
forgets its tenant finds nothing of another one.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import Literal
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import QueuePool
from sqlmodel import Session

from registry.errors import InvalidInput
from registry.names import parse_name
from registry.store import revision, sqlstates
from registry.store.errors import StoreUnsuitable
from registry.store.transaction import Transaction
from registry.store.turns import Turns
from registry.store.walls import EVERYTHING, walled

BUSY_TIMEOUT = 30.0
"""Seconds a writer waits for the others: 1,000 pushes at once take 5 s on the slowest machine measured."""
STATEMENT_LIMIT = 60.0
"""Seconds for one statement; the longest in use reads 1,000 entries."""
IDLE_LIMIT = 60.0
"""Seconds that a writer may think between two statements: then the server takes its lock away, so that a
process that hangs (or a machine that vanished) does not stop everybody."""
MIGRATION_TIMEOUT = 60.0
"""Seconds a migration waits for open transactions to end."""

_MIGRATING = 0x74656E6F6E  # "tenon": the advisory lock of migrations
_OLDEST = 150000


class PostgresDatabase:
    """Opens lazily; every transaction checks the revision."""

    def __init__(
        self, url: str, *, busy_timeout: float = BUSY_TIMEOUT, readers: int = 12, writers: int = 2
    ) -> None:
        """``url``: ``postgresql://role:password@host/database``, with libpq's parameters.

        Two writers a process: while one works, the next already stands in the server's queue.
        """
        self._url = _checked(url)
        self._busy_timeout = busy_timeout
        self._scope = EVERYTHING
        self._reader, self._reading = self._engine(readers), Turns(readers, patience=busy_timeout)
        self._writer, self._writing = self._engine(writers), Turns(writers, patience=busy_timeout)

    def within(self, tenant: str) -> "PostgresDatabase":
        """Shares the connections; closing either closes both."""
        scoped = copy.copy(self)
        scoped._scope = parse_name(tenant, "tenant")
        return scoped

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        with self._reading.turn(), sqlstates.translated(), Session(self._reader) as session:
            self._begin(session.connection(), "REPEATABLE READ READ ONLY")
            yield Transaction(session, whole=self._scope == EVERYTHING)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        with self._writing.turn(), sqlstates.translated(), Session(self._writer) as session:
            self._begin(
                session.connection(),
                "REPEATABLE READ",
                # The view of a REPEATABLE READ transaction dates from its first query, and LOCK is none:
                # so the view is newer than the last commit of another writer.
                "LOCK TABLE frontier IN EXCLUSIVE MODE",
                "SET LOCAL synchronous_commit = on",  # what was acknowledged survives a power cut
                f"SET LOCAL idle_in_transaction_session_timeout = {_milliseconds(IDLE_LIMIT)}",
            )
            yield Transaction(session, whole=self._scope == EVERYTHING)
            session.commit()

    @contextmanager
    def aside(self) -> Iterator[Transaction]:
        with self._reading.turn(), sqlstates.translated(), Session(self._reader) as session:
            self._begin(session.connection(), "READ COMMITTED", "SET LOCAL synchronous_commit = on")
            yield Transaction(session, whole=self._scope == EVERYTHING)
            session.commit()

    def check(self) -> None:
        with self._reading.turn(), sqlstates.translated(), Session(self._reader) as session:
            connection = session.connection()
            self._begin(connection, "REPEATABLE READ READ ONLY")
            _require_suitable(connection)

    def close(self) -> None:
        self._writer.dispose()
        self._reader.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def migrate(self, revision: str) -> None:
        from registry.store import migrate  # noqa: PLC0415 (alembic is slow to import and seldom needed)

        with self._writing.turn(), sqlstates.translated(), self._writer.begin() as connection:
            _run(
                connection,
                "BEGIN ISOLATION LEVEL READ COMMITTED",
                f"SET LOCAL lock_timeout = {_milliseconds(MIGRATION_TIMEOUT)}",
                "SET LOCAL statement_timeout = 0",
                "SET LOCAL synchronous_commit = on",
                f"SET LOCAL tenon.scope = '{EVERYTHING}'",
                f"SELECT pg_advisory_xact_lock({_MIGRATING})",
            )
            if connection.exec_driver_sql("SELECT to_regclass('alembic_version')").scalar() is not None:
                # Every transaction holds this table from its first statement on. So this waits until all are
                # over, and none with an older view meets a rewritten table, which would look empty to it.
                connection.exec_driver_sql("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
            migrate.run(connection, revision)

    def _begin(self, connection: Connection, mode: str, *statements: str) -> None:
        """One round trip: the transaction, its limits, its scope, and the revision."""
        found = _run(
            connection,
            f"BEGIN ISOLATION LEVEL {mode}",
            f"SET LOCAL lock_timeout = {_milliseconds(self._busy_timeout)}",
            f"SET LOCAL statement_timeout = {_milliseconds(STATEMENT_LIMIT)}",
            f"SET LOCAL tenon.scope = {Literal(self._scope).as_string()}",
            "LOCK TABLE alembic_version IN ACCESS SHARE MODE",
            *statements,
            "SELECT version_num FROM alembic_version",
        )
        revision.require(str(row[0]) for row in found)

    def _engine(self, connections: int) -> Engine:
        return create_engine(
            "postgresql+psycopg://",
            creator=lambda: _connect(self._url, self._busy_timeout),
            poolclass=QueuePool,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=self._busy_timeout,
            pool_pre_ping=True,  # a server that was restarted costs nobody a request
        )


def _connect(url: str, busy_timeout: float) -> psycopg.Connection:
    return psycopg.connect(
        url,
        autocommit=True,  # we say BEGIN ourselves: it carries the isolation level and what follows it
        connect_timeout=max(2, int(busy_timeout)),
        application_name="tenon",
        # A server that vanished without a word is noticed after 60 + 3 * 10 s, and not after two hours.
        keepalives_idle=60,
        keepalives_interval=10,
        keepalives_count=3,
    )


def _run(connection: Connection, *statements: str) -> Sequence[tuple[object, ...]]:
    """All in one message (SQLAlchemy sends one statement at a time); returns the last one's rows."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    cursor = driver.execute("; ".join(statements).encode(), prepare=False)
    while cursor.nextset():
        pass
    return cursor.fetchall()


def _require_suitable(connection: Connection) -> None:
    version, encoding, bare = connection.exec_driver_sql(
        "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), ARRAY("
        " SELECT name::text FROM unnest(%s::text[]) AS name"
        " WHERE NOT coalesce(row_security_active(to_regclass(name)), false) ORDER BY name)",
        (list(walled()),),
    ).one()
    if version < _OLDEST:
        raise StoreUnsuitable("the server is older than PostgreSQL 15", hint="upgrade the server")
    if encoding != "UTF8":
        raise StoreUnsuitable(f"the database keeps text as {encoding}", hint="make it with ENCODING 'UTF8'")
    if bare:
        raise StoreUnsuitable(f"row-level security does not bind this role (tables: {', '.join(bare)})")


def _checked(url: str) -> str:
    """Never repeats the URL: it holds a password."""
    try:
        if url.startswith(("postgresql://", "postgres://")) and conninfo_to_dict(url).get("dbname"):
            return url
    except psycopg.ProgrammingError:
        pass
    raise InvalidInput("this is no PostgreSQL URL", hint="write postgresql://ROLE:PASSWORD@HOST/DATABASE")


def _milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}"
