"""A stream of a blob's bytes that checks itself while it is read."""

import hashlib
import io
from typing import TYPE_CHECKING, BinaryIO

from registry.digests import Digest
from registry.errors import BlobCorrupt

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc has it from Python 3.12 on


class _Checked(io.RawIOBase):
    def __init__(self, source: BinaryIO, digest: Digest, size: int) -> None:
        self._source = source
        self._digest = digest
        self._left = size
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer", /) -> int:
        data = self._source.read(memoryview(buffer).nbytes)
        self._hash.update(data)
        self._left -= len(data)
        # Judged with the last expected byte, not one read later: a reader that knows the size and stops
        # there must not miss the verdict. Judged again at the real end, in case the file grew.
        if (self._left <= 0 or not data) and self._hash.hexdigest() != self._digest.hex:
            raise BlobCorrupt(f"the stored bytes are not {self._digest}", digest=self._digest)
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._source.close()
        super().close()


def checked(source: BinaryIO, digest: Digest, size: int) -> BinaryIO:
    """``source`` (``size`` bytes expected) as a stream that raises BlobCorrupt with its last byte, if at all.

    Bytes before the last may be handed out unverified: use them only after the end was reached.
    """
    return io.BufferedReader(_Checked(source, digest, size))
