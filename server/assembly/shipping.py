"""Where records are shipped to: a folder, or the bucket of the TENON_S3 settings."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from registry.blobs.shelf import FilesystemShelf
from registry.errors import InvalidInput
from registry.ports import Shelf
from server.assembly.blobs import s3_place
from server.settings import StorageSettings
from server.shipping.parquet import encoded
from server.shipping.ship import BATCH, ship


def shelf_at(to: str, settings: StorageSettings) -> Shelf:
    """``to``: a folder, or ``s3:PREFIX/`` within the bucket of ``settings``. Raises InvalidInput."""
    if not to.startswith("s3:"):
        folder = Path(to)
        folder.mkdir(parents=True, exist_ok=True)
        return FilesystemShelf(folder)
    from registry.blobs.s3_shelf import S3Shelf  # botocore takes 100 ms to import

    place = s3_place(settings, prefix=to.removeprefix("s3:"))
    if place is None:
        raise InvalidInput("no bucket is set", hint="set TENON_S3_BUCKET and what belongs to it")
    return S3Shelf(place)


def ship_all(records: Path, shelf: Shelf, *, batch: int = BATCH) -> dict[str, int]:
    """Writer -> records shipped now."""
    folders = sorted(path for path in records.iterdir() if path.is_dir()) if records.is_dir() else []
    return {folder.name: ship(folder, shelf, encoded=encoded, batch=batch) for folder in folders}


def ship_every(
    seconds: float,
    records: Path,
    shelf: Shelf,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[dict[str, int]]:
    """For ever; what went wrong is raised, and the next start goes on where this one stopped."""
    while True:
        yield ship_all(records, shelf)
        sleep(seconds)
