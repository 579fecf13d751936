"""Runs the migrations. Apart from ``database`` because Alembic is slow to import and seldom needed."""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from registry.store.errors import SchemaOutdated
from registry.store.migrations import REVISION, REVISIONS


def config(connection: Connection | None = None) -> Config:
    """Without an alembic.ini: the scripts are found inside the installed package."""
    made = Config()
    made.set_main_option("script_location", "registry.store:migrations")
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made


def run(connection: Connection, revision: str) -> None:
    """To ``revision`` within the transaction of ``connection``; the caller commits.

    Raises SchemaOutdated for a database that a newer Tenon wrote: its revision is unknown here.
    """
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in REVISIONS:
        raise SchemaOutdated(
            f"the database has schema revision {found}, which this Tenon does not know",
            hint="use the newer Tenon that wrote it",
            found=found,
            needed=REVISION,
        )
    order = (None, *REVISIONS)
    target = {"head": REVISIONS[-1], "base": None}.get(revision, revision)
    if order.index(target) >= order.index(found):
        command.upgrade(config(connection), target or "base")
    else:
        command.downgrade(config(connection), target or "base")
