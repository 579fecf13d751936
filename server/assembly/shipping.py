"""Where records are shipped to: a folder, the bucket of the TENON_S3 settings, or the registry's database."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.blobs.shelf import FilesystemShelf
from registry.errors import InvalidInput, TenonError
from registry.ports import Shelf
from server.assembly.blobs import s3_place
from server.assembly.catalog import open_catalog
from server.assembly.secrets import read_secret
from server.settings import ShipSettings, StorageSettings
from server.shipping.registry import OverHttp, Registry
from server.shipping.ship import BATCH, Files, Place, ship
from server.workspace import Workspace


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


@contextmanager
def opened(to: str, settings: ShipSettings, workspace: Workspace | None) -> Iterator[Place]:
    """``registry``: over HTTP if TENON_CONTROL_URL says where, else the workspace's own. Or a folder, or a
    bucket (:func:`shelf_at`)."""
    if to != "registry":
        from server.shipping.parquet import encoded  # pyarrow takes 0.3 s to import

        yield Files(shelf_at(to, settings), encoded)
    elif settings.control_url is not None:
        if settings.service_token_file is None:
            raise InvalidInput("TENON_CONTROL_URL needs TENON_SERVICE_TOKEN_FILE")
        with OverHttp(settings.control_url, read_secret(settings.service_token_file)) as catalog:
            yield Registry(catalog)
    elif workspace is not None:
        yield Registry(open_catalog(workspace))
    else:
        raise InvalidInput("which registry?", hint="give --workspace, or set TENON_CONTROL_URL")


def ship_all(records: Path, place: Place, *, batch: int = BATCH) -> dict[str, int]:
    """Writer -> records shipped now."""
    folders = sorted(path for path in records.iterdir() if path.is_dir()) if records.is_dir() else []
    return {folder.name: ship(folder, place, batch=batch) for folder in folders}


def ship_every(
    seconds: float,
    records: Path,
    place: Place,
    *,
    failed: Callable[[TenonError], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[dict[str, int]]:
    """For ever. What went wrong is told to ``failed``, and the next time goes on where that one stopped: in a
    cluster this runs beside a router, which a container that ends would take out of service."""
    while True:
        try:
            yield ship_all(records, place)
        except TenonError as error:
            failed(error)
        sleep(seconds)
