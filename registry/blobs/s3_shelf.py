"""Small pieces as objects of an S3-compatible store, so that every replica of the control plane sees them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

from botocore.exceptions import ClientError

from registry.blobs.bucket import S3Patience, S3Place, connected, is_absent, is_taken, is_unknown, translated
from registry.blobs.multipart import filled, md5_of, sha256_of
from registry.blobs.s3_stream import S3Stream
from registry.ports import Leftovers, Piece


class S3Shelf:
    def __init__(self, place: S3Place, *, patience: S3Patience | None = None) -> None:
        self._patience = patience or S3Patience()
        self._client = connected(place, self._patience, owner=self)
        self._bucket = place.bucket
        self._prefix = place.prefix

    def add(self, name: str, data: bytes) -> bool:
        """Where the store knows no conditional writes, the last of two who add at once wins."""
        condition = {"IfNoneMatch": "*"}
        with translated():
            try:
                self._put(name, data, condition)
            except ClientError as error:
                if is_taken(error):
                    return False
                if not is_unknown(error):
                    raise
                if self.has(name):
                    return False
                self._put(name, data, {})
        return True

    def get(self, name: str) -> bytes:
        answer = self._get(name, {})
        stream = S3Stream(
            answer["Body"],
            lambda start: self._get(name, {"Range": f"bytes={start}-"})["Body"],
            start=0,
            size=answer["ContentLength"],
            patience=self._patience,
        )
        return filled(cast("BinaryIO", stream), answer["ContentLength"])

    def has(self, name: str) -> bool:
        with translated():
            try:
                self._client.head_object(Bucket=self._bucket, Key=self._prefix + name)
            except ClientError as error:
                if is_absent(error):
                    return False
                raise
        return True

    def list(self, folder: str) -> Iterator[Piece]:
        with translated():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}{folder}/" if folder else self._prefix
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    name = item["Key"].removeprefix(self._prefix)
                    yield Piece(name, item["Size"], item["LastModified"].astimezone(UTC))

    def remove(self, name: str) -> None:
        with translated():
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def leftovers(self, *, before: datetime, delete: bool) -> Leftovers:
        return Leftovers(0, 0)

    def _get(self, name: str, part: dict[str, str]) -> Any:
        with translated():
            try:
                return self._client.get_object(Bucket=self._bucket, Key=self._prefix + name, **part)
            except ClientError as error:
                if is_absent(error):
                    raise KeyError(name) from None
                raise

    def _put(self, name: str, data: bytes, condition: dict[str, str]) -> None:
        self._client.put_object(
            Bucket=self._bucket,
            Key=self._prefix + name,
            Body=data,
            ContentMD5=md5_of(data),
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256=sha256_of(data),
            **condition,
        )
