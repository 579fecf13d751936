"""One large object in parts: nothing of it is visible before :meth:`Multipart.complete`."""

import base64
import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, BinaryIO, Final, Self

from registry.blobs.bucket import translated
from registry.blobs.errors import BlobsUnavailable
from registry.digests import Digest

PART: Final = 8 << 20
"""Bytes; S3 takes 10,000 parts of at least 5 MiB, so this reaches 80 GiB. boto3's own default."""
_AT_ONCE: Final = 4
"""Parts under way, 32 MiB: one connection brings 85 to 90 MB/s (AWS's S3 performance guidelines)."""


class Multipart:
    """``with Multipart(…)``: aborted at the end of the block, unless it was completed."""

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        self._client = client
        self._named = {"Bucket": bucket, "Key": key}
        self._parts: list[dict[str, Any]] = []
        self._completed = False

    def __enter__(self) -> Self:
        with translated():
            begun = self._client.create_multipart_upload(**self._named, ChecksumAlgorithm="SHA256")
        self._named["UploadId"] = begun["UploadId"]
        return self

    def __exit__(self, *_: object) -> None:
        if not self._completed:
            # What cannot be aborted now is a leftover, and a collection finds it.
            with suppress(BlobsUnavailable), translated():
                self._client.abort_multipart_upload(**self._named)

    def send(self, parts: Iterator[bytes]) -> tuple[Digest, int]:
        """(the digest of all bytes, how many)."""
        hashed, size = hashlib.sha256(), 0
        under_way: deque[Future[dict[str, Any]]] = deque()
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="tenon-part") as threads:
            try:
                for number, part in enumerate(parts, start=1):
                    hashed.update(part)
                    size += len(part)
                    under_way.append(threads.submit(self._part, number, part))
                    if len(under_way) == _AT_ONCE:
                        self._parts.append(under_way.popleft().result())
                self._parts += [future.result() for future in under_way]
            except BaseException:
                for future in under_way:
                    future.cancel()
                raise
        return Digest(f"sha256:{hashed.hexdigest()}"), size

    @property
    def checksum(self) -> str:
        """As S3 writes it for an object in parts (and then ``-`` and their number): of the parts' sums."""
        return sha256_of(b"".join(base64.b64decode(part["ChecksumSHA256"]) for part in self._parts))

    def complete(self, condition: dict[str, str]) -> None:
        self._client.complete_multipart_upload(
            **self._named, MultipartUpload={"Parts": self._parts}, **condition
        )
        self._completed = True

    def _part(self, number: int, data: bytes) -> dict[str, Any]:
        checksum = sha256_of(data)
        with translated():
            answer = self._client.upload_part(
                **self._named,
                PartNumber=number,
                Body=data,
                ContentMD5=md5_of(data),
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
            )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}


def pieces(stream: BinaryIO, size: int = PART) -> Iterator[bytes]:
    """The rest of ``stream`` in pieces of exactly ``size`` bytes, the last one shorter."""
    while piece := filled(stream, size):
        yield piece
        if len(piece) < size:
            return


def filled(stream: BinaryIO, size: int) -> bytes:
    """Up to ``size`` bytes, fewer only at the end: a raw stream may answer less than it was asked for."""
    found = bytearray()
    while len(found) < size and (data := stream.read(size - len(found))):
        found += data
    return bytes(found)


def sha256_of(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def md5_of(data: bytes) -> str:
    """For stores that compare nothing newer; it guards against accidents and not against people."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
