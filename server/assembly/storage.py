"""The database of a registry: PostgreSQL where a URL says so, else SQLite in the workspace."""

from pathlib import Path

from registry.store.database import Database
from registry.store.port import Store
from server.assembly.secrets import read_url
from server.settings import StorageSettings
from server.workspace import Workspace


def open_store(workspace: Workspace, settings: StorageSettings) -> Store:
    """The setting wins over what ``tenon init`` wrote into the workspace."""
    kept = workspace.database_url if workspace.database_url.exists() else None
    file = settings.database_url_file or kept
    return Database(workspace.database) if file is None else on_postgresql(file)


def on_postgresql(url_file: Path) -> Store:
    from registry.store.postgres import PostgresDatabase  # its driver is not needed on SQLite

    return PostgresDatabase(read_url(url_file))
