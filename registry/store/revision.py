"""Is the schema the one that this code was written for?"""

from collections.abc import Iterable

from registry.store.errors import SchemaOutdated
from registry.store.migrations import REVISION


def require(found: Iterable[str]) -> None:
    """Raises SchemaOutdated; ``found`` is what ``alembic_version`` holds."""
    revision = ", ".join(found) or "none"
    if revision != REVISION:
        raise SchemaOutdated(
            f"the database has schema revision {revision}, this Tenon needs {REVISION}",
            found=revision,
            needed=REVISION,
        )
