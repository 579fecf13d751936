"""A disk that takes no more, told apart from a fault of ours."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from registry.blobs.errors import BlobsUnavailable

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than this process may write",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk does not work",
}


@contextmanager
def writable() -> Iterator[None]:
    """Raises BlobsUnavailable for what freeing space or another disk would mend."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0)
        if reason is None:
            raise
        raise BlobsUnavailable(f"bytes cannot be stored: {reason}") from error
