"""PostgreSQL's and the pool's own troubles as errors with a code; everything else passes unchanged.

Codes: PostgreSQL manual, appendix A. Messages of the server stay in the cause: they may name hosts and roles.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import exc

from registry.errors import InvalidInput, TenonError, WorkspaceNotFound
from registry.store.errors import (
    SchemaOutdated,
    ScopeViolated,
    StoreBusy,
    StoreConflict,
    StoreCorrupt,
    StoreUnavailable,
)
from registry.store.migrations import REVISION

_BUSY = {
    "55P03": "the database stayed locked by another process",  # lock_not_available
    "57014": "the database took too long",  # query_canceled: our statement_timeout
    "40001": "another change came first",  # serialization_failure
    "40P01": "another change came first",  # deadlock_detected
}
_CORRUPT = {"XX001", "XX002"}  # data_corrupted, index_corrupted
_UNDEFINED_TABLE = "42P01"
_FORBIDDEN = "42501"
_UNAVAILABLE = {
    "25006": "the database is read-only",
    "25P03": "the change took too long, and the server gave it up",  # idle_in_transaction_session_timeout
    "53100": "the disk of the database is full",
    "53200": "the server has no memory left",
    "53300": "the server accepts no more connections",
    _FORBIDDEN: "the role may not do this in the database",
}


@contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except exc.TimeoutError:
        raise StoreBusy("no database connection became free in time") from None
    except exc.DBAPIError as error:
        if not isinstance(error.orig, psycopg.Error):
            raise
        raise _meaning(error.orig) or error from error
    except psycopg.Error as error:  # while connecting, and from what SQLAlchemy does not see
        raise _meaning(error) or error from error


def _meaning(error: psycopg.Error) -> TenonError | None:  # noqa: PLR0911 (one line a meaning)
    state = error.sqlstate or ""
    if state in _BUSY:
        return StoreBusy(_BUSY[state])
    # The source function and not the text: the server may speak another language.
    if state == _FORBIDDEN and error.diag.source_function == "ExecWithCheckOptions":
        return ScopeViolated("a change reached for rows of another tenant: nothing of it was kept")
    if state in _UNAVAILABLE:
        return StoreUnavailable(_UNAVAILABLE[state])
    if state in _CORRUPT:
        return StoreCorrupt("the database is damaged")
    if state == _UNDEFINED_TABLE:
        return SchemaOutdated("the database has no tables of Tenon", found="none", needed=REVISION)
    if isinstance(error, psycopg.IntegrityError):
        return StoreConflict(f"the change contradicts what is stored: {error.diag.message_primary}")
    if isinstance(error, psycopg.DataError):
        return InvalidInput("the database cannot store a value of this: is there a NUL in it?")
    if isinstance(error, psycopg.OperationalError):
        return _disconnected(error)
    return None


def _disconnected(error: psycopg.OperationalError) -> TenonError:
    """libpq gives no code when it cannot connect, only the server's text."""
    if re.search(r'database ".*" does not exist', str(error)):
        return WorkspaceNotFound("the database does not exist", hint="make it: docs/guides/storage.md")
    return StoreUnavailable(
        "the database server cannot be reached, or the connection to it broke",
        hint="check that the server runs and that URL and password are right, look whether the change was "
        "made, then try again",
    )
