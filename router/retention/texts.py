"""The files of sealed texts beside a writer's records: ``<writer>/text/000000.jsonl`` and so on.

One fsync for all that waits, in a thread that also encrypts: a plain text is never written, not even for a
moment, and never encrypted on the loop.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from registry.errors import InvalidDocument
from router.errors import RecordUnavailable
from router.retention.sealed import SealedText, Text, seal
from router.retention.tenant_keys import TenantKey

_log = logging.getLogger(__name__)
FOLDER = "text"
PATTERN = "[0-9][0-9][0-9][0-9][0-9][0-9].jsonl"


class _Waiting(NamedTuple):
    record: str
    tenant: str
    key: TenantKey
    text: Text
    durable: asyncio.Future[bool]


class TextLog:
    """Append-only; one process at a time, which the lock on the writer's records sees to."""

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int,
        entropy: Callable[[int], bytes],
        sync: Callable[[int], None] = os.fsync,
    ) -> None:
        """``folder``: of the writer."""
        self._folder = folder / FOLDER
        self._limit = segment_bytes
        self._entropy = entropy
        self._sync = sync
        self._file, self._number, self._size = -1, 0, 0
        self._queue: list[_Waiting] = []
        self._flushing: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def append(self, record: str, tenant: str, key: TenantKey, text: Text) -> asyncio.Future[bool]:
        """The future tells whether the sealed text reached the disk."""
        durable: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(record, tenant, key, text, durable))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return durable

    async def close(self) -> None:
        if self._flushing is not None:
            await self._flushing
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    async def _flush(self) -> None:
        """Until nothing waits; a failure is told to those whose texts were in it."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="texts")
        while self._queue:
            batch, self._queue = self._queue, []
            written = True
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch)
            except OSError as error:
                _log.error("texts: %d could not be written: %s", len(batch), error.strerror)
                written = False
            for waiting in batch:
                if not waiting.durable.done():
                    waiting.durable.set_result(written)

    def _write(self, batch: list[_Waiting]) -> None:
        lines = (
            seal(each.record, each.tenant, each.key, each.text, self._entropy(12)).canonical()
            for each in batch
        )
        data = b"".join(line + b"\n" for line in lines)
        if self._file < 0:
            self._open_last()
        if self._size and self._size + len(data) > self._limit:
            self._open(self._number + 1)
        try:
            rest, at = memoryview(data), self._size
            while rest:
                written = os.pwrite(self._file, rest, at)
                at, rest = at + written, rest[written:]
            self._sync(self._file)
        except OSError:
            os.close(self._file)
            self._file = -1  # what is there of it is cut off when it is opened again
            raise
        self._size = at

    def _open_last(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = sorted(self._folder.glob(PATTERN))
        self._open(int(files[-1].stem) if files else 0)
        whole = _whole_bytes(self._folder / f"{self._number:06d}.jsonl")
        if whole < self._size:  # of a write that did not finish, and that nobody was promised
            os.ftruncate(self._file, whole)
            self._sync(self._file)
            self._size = whole

    def _open(self, number: int) -> None:
        opened = os.open(self._folder / f"{number:06d}.jsonl", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._number, self._size = opened, number, os.fstat(opened).st_size
        directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._sync(directory)
        finally:
            os.close(directory)


async def kept(written: asyncio.Future[bool]) -> None:
    """Wait until a text is on disk. Raises RecordUnavailable."""
    if not await written:
        raise RecordUnavailable


def find(folder: Path, record: str) -> Iterator[SealedText]:
    """Texts of a record in a writer's folder; one, unless its outcome had to be written again."""
    wanted = f'"id":"{record}"'.encode()
    for file in sorted((folder / FOLDER).glob(PATTERN)):
        with file.open("rb") as stream:
            for line in stream:
                if wanted in line and line.endswith(b"\n"):
                    try:
                        found = SealedText.parse(line)
                    except InvalidDocument:
                        continue
                    if found.id == record:
                        yield found


def _whole_bytes(file: Path) -> int:
    """Bytes up to the last newline."""
    with file.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65_536)
            stream.seek(start)
            at = stream.read(end - start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            end = start
    return 0
