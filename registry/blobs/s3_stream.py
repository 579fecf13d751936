"""The bytes of an object, through broken connections and never for ever."""

import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from registry.blobs.bucket import S3Patience
from registry.blobs.errors import BlobsUnavailable

_BROKEN = (BotoCoreError, HTTPError, OSError)


class S3Stream:
    """``size`` bytes from ``start``; a connection that breaks is replaced by one that goes on where it broke.

    ``reopen(start)`` answers the body from that byte on.
    """

    def __init__(
        self,
        body: Any,
        reopen: Callable[[int], Any],
        *,
        start: int,
        size: int,
        patience: S3Patience,
        sleep: Callable[[float], None] = time.sleep,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._body = body
        self._reopen = reopen
        self._at = start
        self._left = size
        self._patience = patience
        self._sleep = sleep
        self._elapsed = elapsed
        self._attempts = 1
        self._waited = 0.0
        self._received = 0

    def read(self, size: int) -> bytes:
        while self._left:
            began = self._elapsed()
            broken: Exception | None = None
            data = b""
            try:
                if self._body is None:
                    self._body = self._reopen(self._at)
                # read1, which botocore does not pass on: what has arrived, at most `size`. read() would wait
                # for all of `size`, and a store that sends a byte now and then could hold it for days.
                data = self._body._raw_stream.read1(min(size, self._left))
            except _BROKEN as error:
                broken = error
            # Only the waiting for the store counts: the reader may be as slow as it likes.
            self._waited += self._elapsed() - began
            if data:
                return self._taken(data)
            self._again(broken)
        return b""

    def close(self) -> None:
        body, self._body, self._left = self._body, None, 0
        if body is not None:
            body.close()

    def _taken(self, data: bytes) -> bytes:
        self._at += len(data)
        self._left -= len(data)
        self._received += len(data)
        if self._waited > self._patience.read + self._received / self._patience.slowest:
            self.close()
            raise BlobsUnavailable("the blob store sends too slowly")
        return data

    def _again(self, broken: Exception | None) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
        if self._attempts >= self._patience.attempts:
            self.close()
            raise BlobsUnavailable("the blob store breaks off while it sends") from broken
        self._sleep(self._patience.pause * 2 ** (self._attempts - 1))
        self._attempts += 1
