"""Bytes to the registry: only what it lacks, in pieces that a crash does not cost twice."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

from registry.catalog.remote.errors import AnswerInvalid, FileChanged, Unreachable
from registry.catalog.remote.part import Part
from registry.catalog.remote.wire import Answer, member, read
from registry.digests import Digest
from registry.errors import Conflict

Moved: TypeAlias = Callable[[int], None]
"""Called with the number of further bytes that lie at the registry."""

WHOLE: Final = 8 << 20
"""Bytes up to which a file goes in one request: below, a second round trip costs more than a repetition."""
PIECE: Final = 8 << 20
"""Bytes of a resumable upload's piece: what a crash may cost, a second at 64 Mbit/s."""


def read_as(path: Path, digest: Digest) -> bytes:
    """The file's bytes. Raises FileChanged when they are not ``digest`` any more."""
    data = path.read_bytes()
    if Digest.of(data) != digest:
        raise FileChanged(f"{path.name} was written to while it was pushed")
    return data


class Uploads(Part):
    def missing(self, tenant: str, digests: Iterable[Digest]) -> frozenset[Digest]:
        """Which of them must still be sent: the registry never tells of other tenants' bytes.

        Raises TenantNotFound and what the key may not do, so it is also the question before long work.
        """
        asked = sorted(set(digests))
        answer = self._wire.ask(self._of(tenant, "blobs", "missing"), {"digests": asked})
        return frozenset(asked) & frozenset(read(tuple[Digest, ...], member(answer, "missing")))

    def upload(self, tenant: str, path: Path, digest: Digest, *, moved: Moved | None = None) -> None:
        """Send the file's bytes, which must be ``digest``; picks up where an earlier attempt stopped.

        Raises FileChanged, QuotaExceeded, Unreachable.
        """
        told = moved or (lambda _: None)
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            if size > WHOLE:
                self._resumable(tenant, stream, digest, size, told)
                return
        data = read_as(path, digest)
        self._wire.call("PUT", self._of(tenant, "blobs", digest), content=data)
        told(size)

    def _resumable(self, tenant: str, stream: BinaryIO, digest: Digest, size: int, moved: Moved) -> None:
        at = self._of(tenant, "uploads", digest)
        offset = self._begin(tenant, digest, size)
        moved(offset)
        failures = 0
        while offset < size:
            stream.seek(offset)
            piece = stream.read(min(PIECE, size - offset))
            if not piece:
                raise FileChanged("the file became shorter while it was pushed")
            try:
                answer = self._wire.call(
                    "PATCH", at, content=piece, headers={"Upload-Offset": str(offset)}, retry=False
                )
                arrived = _offset(answer)
            except (Unreachable, Conflict):
                # Lost on the way there, or on the way back? Only the registry knows how much it has.
                failures += 1
                if failures >= self._wire.patience.attempts:
                    raise
                self._wire.breathe(failures)
                arrived = self._begin(tenant, digest, size)
            if arrived > offset:
                failures = 0
            elif not failures:
                raise AnswerInvalid("the registry took a piece and has no more than before")
            moved(arrived - offset)
            offset = arrived

    def _begin(self, tenant: str, digest: Digest, size: int) -> int:
        """How much the registry has of it; all of it when the upload was completed meanwhile."""
        answer: Any = self._wire.post(self._of(tenant, "uploads"), {"digest": digest, "size": size})
        offset = read(int, member(answer, "offset"))
        if not 0 <= offset <= size:
            raise AnswerInvalid(f"the registry has {offset} of {size} bytes")
        return offset


def _offset(answer: Answer) -> int:
    text = answer.headers.get("Upload-Offset", "")
    if not text.isascii() or not text.isdecimal():
        raise AnswerInvalid("the registry did not say how much has arrived")
    return int(text)
