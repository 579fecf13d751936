"""Shipped records from where they are: a folder, the bucket of the TENON_S3 settings, or the database."""

from pathlib import Path

from server.assembly.catalog import open_catalog
from server.assembly.shipping import check_target, shelf_at
from server.errors import FileUnusable
from server.settings import StorageSettings
from server.shipping.fetch import RegistrySource, ShelfSource, fetch
from server.workspace import Workspace


def fetch_all(
    source: str, into: Path, settings: StorageSettings, workspace: Workspace | None
) -> dict[str, int]:
    """Writer -> records. ``workspace``: whose database ``registry`` is."""
    check_target(source)
    if workspace is not None:
        return fetch(RegistrySource(open_catalog(workspace)), into)
    from server.shipping.parquet import decoded  # pyarrow takes 0.3 s to import

    if not source.startswith("s3:") and not Path(source).is_dir():
        raise FileUnusable(f"there are no shipped records in {source}")
    return fetch(ShelfSource(shelf_at(source, settings), decoded), into)
