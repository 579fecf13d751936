"""Somebody edits the SQLite file of a registry, carefully: the triggers against it are back afterwards."""

import sqlite3
from pathlib import Path


def tamper(file: Path, *statements: str) -> None:
    """Each statement must change something."""
    connection = sqlite3.connect(file)
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        assert connection.execute(statement).rowcount > 0, statement
    for _, definition in triggers:
        connection.execute(definition)
    connection.commit()
    connection.close()
