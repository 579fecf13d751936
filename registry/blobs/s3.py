"""Blobs as objects of an S3-compatible store: ``<prefix>sha256/ab/<64 hex>``.

An object appears under its key only complete and checked: S3 makes objects visible whole or not at all, and
compares the checksums that we send with what arrived.

Taking a blob away must not race with somebody who has just been told that it is there, and S3 has no delete
on the condition of an age. So a collector leaves a mark, looks at the age and then deletes; whoever renews
writes first and then looks for the mark. S3 is strongly consistent, so one of the two sees the other.
"""

import base64
import hashlib
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property, partial
from typing import Any, BinaryIO, cast

from botocore.exceptions import ClientError

from registry.blobs.bucket import (
    S3Patience,
    S3Place,
    code_of,
    connected,
    is_absent,
    is_taken,
    is_unknown,
    translated,
)
from registry.blobs.checked import checked
from registry.blobs.errors import BlobsUnavailable
from registry.blobs.multipart import Multipart, md5_of, pieces
from registry.blobs.part import part
from registry.blobs.s3_stream import S3Stream
from registry.digests import Digest
from registry.errors import BlobCorrupt, BlobNotFound
from registry.ports import Leftovers, Stored

_KEY = re.compile(r"sha256/(?P<shard>[0-9a-f]{2})/(?P<hex>(?P=shard)[0-9a-f]{62})", re.ASCII)
_MARK_LIVES = 120.0
"""Seconds after which a collector's mark means nothing: it must delete within half of that, or give up."""
_WAIT_FOR_COLLECTOR = 10.0
"""Seconds; a mark that is not stale is gone after three requests."""


@dataclass(frozen=True, slots=True)
class _Found:
    size: int
    renewed_at: datetime
    checksum: str | None
    """Base64 of the SHA-256 of the whole, or ``<base64>-<parts>`` of the parts' sums; None: not known."""
    age: float
    """Seconds, by the store's own clock."""


class S3Blobs:
    def __init__(
        self,
        place: S3Place,
        *,
        patience: S3Patience | None = None,
        renew_after: float = 600.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``renew_after``: seconds; an object younger than that is not written again only to renew its age.
        Must be well below the grace of a collection."""
        self._patience = patience or S3Patience()
        self._client = connected(place, self._patience, owner=self)
        self._place = place
        self._bucket = place.bucket
        self._prefix = place.prefix
        self._renew_after = renew_after
        self._sleep = sleep

    def put(self, stream: BinaryIO, *, expect: Digest | None = None) -> tuple[Digest, int]:
        parts = pieces(stream)
        first = next(parts, b"")
        second = next(parts, b"")
        if not second:
            digest = Digest.of(first)
            if expect is not None and digest != expect:
                raise _unexpected(digest, expect)
            self._put_whole(digest, first)
            return digest, len(first)
        if expect is not None:
            return expect, self._put_parts(expect, _chained(first, second, parts))
        # The key is the digest, so the bytes must be seen once before the first of them can be sent.
        with tempfile.TemporaryFile(prefix="tenon-blob-") as spool:
            hashed = hashlib.sha256()
            for piece in _chained(first, second, parts):
                hashed.update(piece)
                spool.write(piece)
            spool.seek(0)
            digest = Digest(f"sha256:{hashed.hexdigest()}")
            return digest, self._put_parts(digest, pieces(cast("BinaryIO", spool)))

    def open(self, digest: Digest) -> BinaryIO:
        body, size = self._get(digest, start=0, end=None)
        return checked(cast("BinaryIO", self._stream(digest, body, start=0, size=size)), digest, size)

    def read(self, digest: Digest) -> bytes:
        with self.open(digest) as stream:
            return stream.read()

    def has(self, digest: Digest) -> bool:
        return self._head(self._key(digest)) is not None

    def digests(self) -> Iterator[Digest]:
        return (item.digest for item in self.stored())

    def stat(self, digest: Digest) -> Stored:
        found = self._head(self._key(digest))
        if found is None:
            raise _absent(digest)
        return Stored(digest, found.size, found.renewed_at)

    def stored(self) -> Iterator[Stored]:
        with translated():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}sha256/"
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    match = _KEY.fullmatch(item["Key"].removeprefix(self._prefix))
                    if match is not None:
                        digest = Digest(f"sha256:{match['hex']}")
                        yield Stored(digest, item["Size"], item["LastModified"].astimezone(UTC))

    def renew(self, digest: Digest) -> bool:
        key = self._key(digest)
        found = self._head(key)
        if found is None:
            return False
        if found.age < self._renew_after:
            return True
        try:
            with translated():
                # Onto itself: S3 then gives it a new date, and no byte travels (up to 5 GiB).
                self._client.copy_object(
                    Bucket=self._bucket,
                    Key=key,
                    CopySource={"Bucket": self._bucket, "Key": key},
                    MetadataDirective="REPLACE",
                    ChecksumAlgorithm="SHA256",
                )
        except BlobsUnavailable as error:
            if isinstance(error.__cause__, ClientError) and is_absent(error.__cause__):
                return False
            raise
        # Only then: a collector that was at it before may have removed both, the blob and its mark.
        return not self._is_marked(digest) and self.has(digest)

    def open_unchecked(self, digest: Digest, *, start: int, size: int) -> BinaryIO:
        whole = self.stat(digest).size
        size = max(0, min(size, whole - start))
        stream = self._stream(digest, None, start=start, size=size, end=start + size - 1)
        return part(cast("BinaryIO", stream), size)

    def delete_for_ever(self, digest: Digest, *, unless_renewed_since: datetime) -> bool:
        # A name of its own: another collector must not take this mark away.
        key, mark = self._key(digest), f"{self._marks(digest)}{secrets.token_hex(8)}"
        began = time.monotonic()
        with translated():
            self._client.put_object(Bucket=self._bucket, Key=mark, Body=b"")
        found = self._head(key)
        removed = False
        if found is not None and found.renewed_at < unless_renewed_since:
            if time.monotonic() - began > _MARK_LIVES / 2:
                raise BlobsUnavailable("the blob store is too slow to delete from safely")
            with translated():
                self._deleting.delete_object(Bucket=self._bucket, Key=key)
            removed = True
        with translated():
            self._client.delete_object(Bucket=self._bucket, Key=mark)
        return removed

    @cached_property
    def _deleting(self) -> Any:
        """Repeated, a delete could hit what somebody put after the first one: once, or the mark stays."""
        return connected(self._place, replace(self._patience, attempts=1), owner=self)

    def leftovers(self, *, before: datetime, delete: bool) -> Leftovers:
        """Multipart uploads that were never completed (S3 bills their parts and lists them nowhere else), and
        marks of collectors that died."""
        count = size = 0
        with translated():
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}sha256/"
            )
            for upload in [item for page in pages for item in page.get("Uploads", ())]:
                if upload["Initiated"].astimezone(UTC) >= before:
                    continue
                named = {"Bucket": self._bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                parts = self._client.get_paginator("list_parts").paginate(**named)
                size += sum(part["Size"] for page in parts for part in page.get("Parts", ()))
                count += 1
                if delete:
                    self._client.abort_multipart_upload(**named)
            marks = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}doomed/"
            )
            for mark in [item for page in marks for item in page.get("Contents", ())]:
                if mark["LastModified"].astimezone(UTC) < before:
                    count += 1
                    if delete:
                        self._client.delete_object(Bucket=self._bucket, Key=mark["Key"])
        return Leftovers(count, size)

    def _put_whole(self, digest: Digest, data: bytes) -> None:
        checksum = base64.b64encode(bytes.fromhex(digest.hex)).decode()

        def send(condition: dict[str, str]) -> None:
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._key(digest),
                Body=data,
                ContentMD5=md5_of(data),
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
                **condition,
            )

        self._settle(digest, len(data), {checksum}, send)

    def _put_parts(self, digest: Digest, parts: Iterator[bytes]) -> int:
        with Multipart(self._client, self._bucket, self._key(digest)) as upload:
            found, size = upload.send(parts)
            if found != digest:
                raise _unexpected(found, digest)
            whole = base64.b64encode(bytes.fromhex(digest.hex)).decode()
            self._settle(digest, size, {whole, upload.checksum}, upload.complete)
        return size

    def _settle(
        self, digest: Digest, size: int, checksums: set[str], send: Callable[[dict[str, str]], None]
    ) -> None:
        """``checksums``: how S3 may write down what we send, without the number of parts.

        ``send`` unless the same bytes lie there already, by S3's own word, and are young."""
        if self._sent_first(digest, send):
            return
        found = self._head(self._key(digest))
        if found is not None and found.age < self._renew_after:
            sums = (found.checksum or "").partition("-")[0]
            if found.size == size and sums in checksums:
                return
        for _ in range(3):
            with translated():
                send({})  # over it: older than a collector may like, or damaged, or who knows
            self._await_collectors(digest)
            if self.has(digest):
                return
        raise BlobsUnavailable("these bytes are collected faster than they can be put")

    def _await_collectors(self, digest: Digest) -> None:
        waited = 0.0
        while self._is_marked(digest):
            if waited >= _WAIT_FOR_COLLECTOR:
                raise BlobsUnavailable("these bytes are being collected at this moment")
            self._sleep(0.1)
            waited += 0.1

    def _sent_first(self, digest: Digest, send: Callable[[dict[str, str]], None]) -> bool:
        with translated():
            try:
                send({"IfNoneMatch": "*"})
            except ClientError as error:
                if is_unknown(error):
                    return False
                # A completion that is repeated because its answer was lost finds its upload gone.
                if is_taken(error) or (code_of(error) == "NoSuchUpload" and self.has(digest)):
                    return False
                if code_of(error) in ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"):
                    raise BlobsUnavailable("the bytes were damaged on the way to the blob store") from error
                raise
        return True

    def _get(self, digest: Digest, *, start: int, end: int | None) -> tuple[Any, int]:
        wanted = (
            {} if start == 0 and end is None else {"Range": f"bytes={start}-{'' if end is None else end}"}
        )
        with translated():
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._key(digest), **wanted)
            except ClientError as error:
                if is_absent(error):
                    raise _absent(digest) from None
                raise
        return answer["Body"], answer["ContentLength"]

    def _stream(
        self, digest: Digest, body: Any, *, start: int, size: int, end: int | None = None
    ) -> S3Stream:
        return S3Stream(
            body,
            partial(self._reopened, digest, end),
            start=start,
            size=size,
            patience=self._patience,
            sleep=self._sleep,
        )

    def _reopened(self, digest: Digest, end: int | None, start: int) -> Any:
        return self._get(digest, start=start, end=end)[0]

    def _head(self, key: str) -> _Found | None:
        with translated():
            try:
                answer = self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
            except ClientError as error:
                if is_absent(error):
                    return None
                raise
        renewed_at = answer["LastModified"].astimezone(UTC)
        return _Found(
            size=answer["ContentLength"],
            renewed_at=renewed_at,
            checksum=answer.get("ChecksumSHA256"),
            age=(_clock_of(answer) - renewed_at).total_seconds(),
        )

    def _is_marked(self, digest: Digest) -> bool:
        with translated():
            answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._marks(digest))
        now = _clock_of(answer)
        return any(
            (now - mark["LastModified"]).total_seconds() < _MARK_LIVES for mark in answer.get("Contents", ())
        )

    def _key(self, digest: Digest) -> str:
        return f"{self._prefix}sha256/{digest.hex[:2]}/{digest.hex}"

    def _marks(self, digest: Digest) -> str:
        return f"{self._prefix}doomed/{digest.hex}/"


def _clock_of(answer: Mapping[str, Any]) -> datetime:
    """The store's, to which its dates belong; ours may differ."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)


def _chained(first: bytes, second: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield second
    yield from rest


def _unexpected(found: Digest, expected: Digest) -> BlobCorrupt:
    return BlobCorrupt(f"the given bytes are {found}, not {expected}", digest=expected)


def _absent(digest: Digest) -> BlobNotFound:
    return BlobNotFound(f"no blob {digest}", digest=digest)
