"""How much a database does for a question, in units that nothing else on the machine changes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, event

_STEPS = 10
_READ = (
    "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint FROM pg_stat_xact_user_tables"
)


@dataclass
class Work:
    steps: int = 0
    """SQLite: instructions of its virtual machine, to ten."""
    rows: int = 0
    """PostgreSQL: rows that its scans read, whether or not they were asked for."""


@contextmanager
def counted() -> Iterator[Work]:
    """Of every engine in this process, meanwhile."""
    found, handled = Work(), list[Any]()
    before: dict[Any, int] = {}
    """PostgreSQL's connections in a transaction -> what they had read when they were first seen in it: its
    statistics go on over transactions, until they are collected between two."""

    def step() -> None:
        found.steps += _STEPS

    def begins(connection: Connection, cursor: Any, *_: object) -> None:
        if connection.dialect.name == "sqlite":
            cursor.connection.set_progress_handler(step, _STEPS)
            handled.append(cursor.connection)
        elif cursor.connection not in before:
            before[cursor.connection] = _read(cursor.connection)

    def ends(connection: Connection) -> None:
        driver = connection.connection.dbapi_connection
        if driver in before:
            found.rows += _read(driver) - before.pop(driver)

    listening: dict[str, Callable[..., object]] = {
        "before_cursor_execute": begins,
        "rollback": ends,
        "commit": ends,
    }
    for name, hear in listening.items():
        event.listen(Engine, name, hear)
    try:
        yield found
        for driver, read in before.items():
            found.rows += _read(driver) - read
    finally:
        for name, hear in listening.items():
            event.remove(Engine, name, hear)
        for driver in handled:
            driver.set_progress_handler(None, 0)


def _read(driver: Any) -> int:
    with driver.cursor() as cursor:
        cursor.execute(_READ)
        return int(cursor.fetchone()[0])
