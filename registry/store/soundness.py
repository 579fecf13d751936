"""What a database knows to be wrong with itself."""

from sqlmodel import Session

from registry.store.walls import walled

_APPEND_ONLY = ("entries", "heads", "nodes")
_GUARDS = tuple(
    f"{table}_no_{action}" for table in _APPEND_ONLY for action in ("update", "delete", "truncate")
)


def faults(session: Session) -> tuple[str, ...]:
    """Empty means sound."""
    return _postgresql(session) if session.get_bind().dialect.name == "postgresql" else _sqlite(session)


def _sqlite(session: Session) -> tuple[str, ...]:
    """Its pages and indexes, and the triggers word for word: one that is there may do nothing."""
    connection = session.connection()
    found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    triggers = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    there = {str(name): sql for name, sql in triggers}
    gone = [
        f"{_UNGUARDED}: {table}_no_{action.lower()}"
        for table in _APPEND_ONLY
        for action in ("UPDATE", "DELETE")
        if there.get(f"{table}_no_{action.lower()}") != _trigger(table, action)
    ]
    return (*(str(line) for line in found if line != "ok"), *sorted(gone))


def _trigger(table: str, action: str) -> str:
    return (
        f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, 'the {table} of the log are append-only'); END"
    )


_UNGUARDED = "a trigger that keeps the log append-only is gone or off"
_ASKED = {
    "pages with a wrong checksum were read": (
        "SELECT checksum_failures::text FROM pg_stat_database"
        " WHERE datname = current_database() AND checksum_failures > 0"
    ),
    "an index is not valid": (
        "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indrelid"
        " WHERE relnamespace = current_schema()::regnamespace AND NOT (indisvalid AND indisready)"
    ),
    "a rule of the tables is not enforced": (
        "SELECT conname::text FROM pg_constraint"
        " WHERE connamespace = current_schema()::regnamespace AND NOT convalidated"
    ),
    _UNGUARDED: (
        "SELECT name::text FROM unnest(%(guards)s::text[]) AS name WHERE NOT EXISTS ("
        " SELECT FROM pg_trigger WHERE tgname = name AND tgenabled IN ('O', 'A')"
        " AND tgrelid = to_regclass(split_part(name, '_no_', 1)))"
    ),
    "a foreign key is not enforced": (
        "SELECT tgrelid::regclass::text FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid"
        " WHERE relnamespace = current_schema()::regnamespace AND tgisinternal"
        " AND tgenabled NOT IN ('O', 'A')"
    ),
    "row-level security does not bind this role": (
        "SELECT name::text FROM unnest(%(walled)s::text[]) AS name"
        " WHERE NOT coalesce(row_security_active(to_regclass(name)), false)"
    ),
}
"""What is wrong -> where. Pages themselves are not read: that takes a superuser (amcheck)."""


def _postgresql(session: Session) -> tuple[str, ...]:
    given = {"guards": list(_GUARDS), "walled": list(walled())}
    connection = session.connection()
    return tuple(
        f"{what}: {where}"
        for what, question in _ASKED.items()
        for where in sorted(set(connection.exec_driver_sql(question, given).scalars()))
    )
