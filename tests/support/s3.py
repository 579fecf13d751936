"""A real S3 server (moto) on loopback: one for the whole session, a fresh bucket for each test."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any

from registry.blobs.bucket import S3Credentials, S3Patience, S3Place, connected

CREDENTIALS = S3Credentials("test", "test-secret")
IMPATIENT = S3Patience(connect=2, read=2, attempts=3, pause=0.01)


@dataclass
class S3Server:
    endpoint: str
    _numbers: Iterator[int] = field(default_factory=count)

    def place(self, *, prefix: str = "registry/") -> S3Place:
        """In a bucket of its own."""
        place = S3Place(
            bucket=f"bucket-{next(self._numbers)}",
            prefix=prefix,
            endpoint=self.endpoint,
            path_style=True,
            credentials=CREDENTIALS,
        )
        raw(place).create_bucket(Bucket=place.bucket)
        return place


@contextmanager
def running() -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()


def raw(place: S3Place) -> Any:
    """A plain client, to look at a bucket and to damage it; one for all (making one takes 60 ms of CPU)."""
    return _client(replace(place, bucket="any", prefix=""))


@cache
def _client(place: S3Place) -> Any:
    return connected(place, S3Patience(), owner=_client)


def through(place: S3Place, endpoint: str) -> S3Place:
    """The same bucket by another way."""
    return replace(place, endpoint=endpoint)


def keys(place: S3Place, folder: str = "") -> list[str]:
    """All of them below the prefix, without it."""
    answer = raw(place).list_objects_v2(Bucket=place.bucket, Prefix=place.prefix + folder)
    return [item["Key"].removeprefix(place.prefix) for item in answer.get("Contents", ())]


def aged(place: S3Place, name: str, *, days: float = 400) -> None:
    """As if it had been written long ago."""
    from moto.s3.models import s3_backends

    buckets = next(iter(s3_backends.values()))["aws"].buckets
    buckets[place.bucket].keys[place.prefix + name].last_modified -= timedelta(days=days)
