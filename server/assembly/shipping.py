"""Where records are shipped to: a folder, the bucket of the TENON_S3 settings, or the registry's database."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.blobs.shelf import FilesystemShelf
from registry.errors import InvalidInput, TenonError
from registry.ports import Shelf
from router.records.segments import segments_of
from server.assembly.blobs import s3_place
from server.assembly.catalog import open_catalog
from server.assembly.secrets import read_secret
from server.errors import FileUnusable, ShippingTargetInvalid
from server.settings import ShipSettings, StorageSettings
from server.shipping.registry import OverHttp, Registry
from server.shipping.ship import BATCH, Files, Place, ship
from server.workspace import Workspace

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def check_target(to: str) -> None:
    """Raises ShippingTargetInvalid for what would become a folder and was meant otherwise: a URL, or a word
    spelled differently. Its text is not repeated: there are passwords in URLs."""
    scheme = _SCHEME.match(to)
    if scheme is not None and not to.startswith("s3:"):
        raise ShippingTargetInvalid(f"records are not shipped to {scheme[0][:20]}…")
    if not to.strip() or (to != "registry" and to.lower() in {"registry", "s3"}) or to.startswith("s3://"):
        raise ShippingTargetInvalid("no such target of records")


def shelf_at(to: str, settings: StorageSettings) -> Shelf:
    """``to``: a folder, or ``s3:PREFIX/`` within the bucket of ``settings``. Raises InvalidInput."""
    check_target(to)
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
        from server.shipping.parquet import encoded, newest  # pyarrow takes 0.3 s to import

        name = f"{settings.s3_bucket}:{to}" if to.startswith("s3:") else str(Path(to).resolve())
        yield Files(shelf_at(to, settings), encoded, newest, name)
    elif settings.control_url is not None:
        if settings.service_token_file is None:
            raise InvalidInput("TENON_CONTROL_URL needs TENON_SERVICE_TOKEN_FILE")
        with OverHttp(settings.control_url, read_secret(settings.service_token_file)) as catalog:
            yield Registry(catalog)
    elif workspace is not None:
        yield Registry(open_catalog(workspace))
    else:
        raise InvalidInput("which registry?", hint="give --workspace, or set TENON_CONTROL_URL")


def record_folders(records: Path) -> list[Path]:
    """Of each writer. Raises FileUnusable where there can be no records: a folder that is not mounted would
    be shipped from for ever."""
    try:
        folders = sorted(path for path in records.iterdir() if path.is_dir())
    except OSError as error:
        raise FileUnusable(f"the records in {records} cannot be read: {error.strerror}") from None
    if segments_of(records):
        raise FileUnusable(f"{records} is the folder of one writer", hint="give the folder that it is in")
    return folders


def ship_all(records: Path, place: Place, *, batch: int = BATCH) -> dict[str, int]:
    """Writer -> records shipped now. Raises FileUnusable."""
    return {folder.name: ship(folder, place, batch=batch) for folder in record_folders(records)}


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
