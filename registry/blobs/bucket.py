"""A bucket of an S3-compatible store: where it is, how long to wait for it, and its errors as ours."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from registry.blobs.errors import BlobsUnavailable
from registry.errors import InvalidInput

_ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})
_TAKEN = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})
_UNKNOWN = frozenset({"501", "NotImplemented"})


@dataclass(frozen=True, slots=True)
class S3Credentials:
    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class S3Patience:
    """How long a store may take; together they bound every call."""

    connect: float = 3.0
    """Seconds; three times TCP's first retransmission (RFC 6298: 1 s)."""
    read: float = 20.0
    """Seconds between two bytes of an answer."""
    attempts: int = 4
    """Of one call, the first included."""
    slowest: int = 32 * 1024
    """Bytes a second that a body must bring on the whole: a store that sends a byte now and then is down."""
    pause: float = 0.1
    """Seconds before the second attempt at a body; twice as long before each further one."""


@dataclass(frozen=True, slots=True)
class S3Place:
    bucket: str
    prefix: str = ""
    """Before every key; empty, or ends with ``/``."""
    endpoint: str | None = None
    """None: AWS."""
    region: str = "us-east-1"
    path_style: bool = False
    """``endpoint/bucket/key`` instead of ``bucket.endpoint/key``: what stores without wildcard DNS need."""
    credentials: S3Credentials | None = None
    """None: the standard chain (environment, shared files, instance or pod role)."""

    def __post_init__(self) -> None:
        if not self.bucket:
            raise InvalidInput("the bucket has no name")
        if self.prefix and (not self.prefix.endswith("/") or self.prefix.startswith("/")):
            raise InvalidInput("a prefix of keys ends with '/' and does not begin with it")


def connected(place: S3Place, patience: S3Patience, *, owner: object = None) -> Any:
    """A boto3 client, safe to share between threads. It makes no request, except to look for credentials.

    Its connections end with ``owner``; without one, close it. Raises BlobsUnavailable.
    """
    import boto3  # noqa: PLC0415 (100 ms that a command line without S3 does not pay)

    given = place.credentials
    config = Config(
        connect_timeout=patience.connect,
        read_timeout=patience.read,
        retries={"mode": "standard", "total_max_attempts": patience.attempts},
        max_pool_connections=64,
        s3={"addressing_style": "path" if place.path_style else "auto"},
        # We say ourselves which checksum goes with which bytes. botocore's own choice since 1.36 (CRC
        # trailers) is refused by stores that do not know it.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    with translated():
        session = boto3.session.Session(
            aws_access_key_id=given.access_key if given else None,
            aws_secret_access_key=given.secret_key if given else None,
            aws_session_token=given.session_token if given else None,
            region_name=place.region,
        )
        client = session.client("s3", endpoint_url=place.endpoint, config=config)
    if owner is not None:
        weakref.finalize(owner, client.close)
    return client


@contextmanager
def translated() -> Iterator[None]:
    """Whatever the store or the way to it does wrong, as BlobsUnavailable.

    Its message names S3's error code and nothing else: bucket, keys and endpoint are the operator's.
    """
    try:
        yield
    except ClientError as error:
        raise BlobsUnavailable(f"the blob store answered {code_of(error)}") from error
    except (BotoCoreError, HTTPError) as error:
        raise BlobsUnavailable(f"the blob store cannot be used ({type(error).__name__})") from error


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "an error"))[:64]


def is_absent(error: ClientError) -> bool:
    return code_of(error) in _ABSENT


def is_taken(error: ClientError) -> bool:
    """Of a conditional write: somebody was there before, or is at this moment."""
    return code_of(error) in _TAKEN


def is_unknown(error: ClientError) -> bool:
    """The store does not know conditional writes."""
    return code_of(error) in _UNKNOWN
