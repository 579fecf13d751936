"""The blobs of a registry: an S3-compatible store where a bucket is set, else files in the workspace."""

from configparser import ConfigParser, Error
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.blobs.filesystem import FilesystemBlobs
from registry.blobs.shelf import FilesystemShelf
from registry.blobs.uploads import Uploads
from registry.errors import InvalidInput
from registry.ports import BlobStore
from server.errors import SettingsInvalid
from server.settings import StorageSettings
from server.workspace import Workspace

if TYPE_CHECKING:
    from registry.blobs.bucket import S3Place


@dataclass(frozen=True, slots=True)
class Storage:
    blobs: BlobStore
    uploads: Uploads
    """Into these blobs."""


def open_storage(workspace: Workspace, settings: StorageSettings) -> Storage:
    """Makes no request. Raises SettingsInvalid."""
    if settings.s3_bucket is None:
        files = FilesystemBlobs(workspace.blobs)
        return Storage(files, Uploads(FilesystemShelf(workspace.blobs), files))

    # botocore takes 100 ms to import, which a workspace on a disk need not pay.
    from registry.blobs.s3 import S3Blobs
    from registry.blobs.s3_shelf import S3Shelf

    place = s3_place(settings, prefix=settings.s3_prefix)
    if place is None:
        raise SettingsInvalid("no bucket is set")
    blobs = S3Blobs(place)
    return Storage(blobs, Uploads(S3Shelf(place), blobs))


def s3_place(settings: StorageSettings, *, prefix: str) -> "S3Place | None":
    """None where no bucket is set. Raises SettingsInvalid."""
    if settings.s3_bucket is None:
        return None
    from registry.blobs.bucket import S3Credentials, S3Place

    file = settings.s3_credentials_file
    try:
        return S3Place(
            bucket=settings.s3_bucket,
            prefix=prefix,
            endpoint=settings.s3_endpoint,
            region=settings.s3_region,
            path_style=settings.s3_path_style,
            credentials=S3Credentials(*_credentials(file)) if file else None,
        )
    except InvalidInput as error:
        raise SettingsInvalid(error.message) from None


def _credentials(path: Path) -> tuple[str, str, str | None]:
    """AWS's shared credentials file, its section ``default``: what every S3 tool reads and writes."""
    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text())
        found = parser["default"]
        return (
            found["aws_access_key_id"],
            found["aws_secret_access_key"],
            found.get("aws_session_token"),
        )
    except OSError as error:
        raise SettingsInvalid(f"secret file {path} cannot be read: {error.strerror}") from None
    except (Error, KeyError, UnicodeDecodeError):  # their texts quote the file, and the file is a secret
        raise SettingsInvalid(
            f"secret file {path} is no credentials file with aws_access_key_id and aws_secret_access_key"
            " in its section [default]"
        ) from None
