"""record: lines enter the chain in order, and wait together for one write and one fsync (group commit)."""

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from registry.clock import Clock, stamp
from registry.digests import Digest
from router.errors import RecordUnavailable
from router.limits import Cadence
from router.records.record import KIND, Trace, line_of
from router.records.segments import Line, Segments, Tail

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an outcome is stored, and whose it is."""

    segment: int
    offset: int
    length: int
    tenant: str | None


@dataclass(frozen=True, slots=True)
class _Entry:
    line: bytes
    digest: Digest
    id: str
    tenant: str | None
    outcome: bool
    durable: asyncio.Future[bool]


class RecordLog:
    """One writer's chain. ``open`` first, ``close`` last; everything on one event loop."""

    def __init__(self, segments: Segments, *, writer: str, clock: Clock, cadence: Cadence) -> None:
        self._segments = segments
        self._writer = writer
        self._clock = clock
        self._cadence = cadence
        self._index: dict[str, Place] = {}
        self._queue: list[_Entry] = []
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._thread: ThreadPoolExecutor | None = None
        self._flusher: asyncio.Task[None] | None = None
        self._next: Tail | None = None
        self._durable: Tail | None = None
        self.fault: str | None = "not open"
        """Why nothing can be written now; None while all is well."""

    async def open(self) -> None:
        """Resume the chain on disk. Raises RecordCorrupt, OSError."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="records")
        try:
            self._next = self._durable = await self._in_thread(self._segments.open, self._seen)
        except BaseException:
            self._thread.shutdown()
            raise
        self.fault = None
        self._flusher = asyncio.create_task(self._flush())

    @property
    def durable(self) -> Tail | None:
        """The chain as it is on disk: ``seq`` lines, the last of which has ``digest``."""
        return self._durable

    @property
    def waiting(self) -> int:
        """Lines not yet on disk."""
        return len(self._queue)

    def append(self, event: Literal["intent", "outcome"], trace: Trace) -> asyncio.Future[bool]:
        """Put a line into the chain; the future tells whether it reached the disk.

        Raises RecordUnavailable at once while the disk is known to fail.
        """
        if self.fault is not None or self._next is None or self._closing.is_set():
            raise RecordUnavailable
        fields = trace.fields() | {
            "kind": KIND,
            "writer": self._writer,
            "seq": self._next.seq,
            "prev": self._next.digest,
            "at": stamp(self._clock.now()),
            "event": event,
        }
        line = line_of(fields)
        durable: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        entry = _Entry(line, Digest.of(line), trace.id, trace.tenant, event == "outcome", durable)
        self._queue.append(entry)
        self._next = Tail(self._next.seq + 1, entry.digest)
        self._wake.set()
        return durable

    async def read(self, record: str, tenant: str) -> bytes | None:
        """The exact outcome line; None when there is none **or** it is another tenant's."""
        place = self._index.get(record)
        if place is None or place.tenant != tenant:
            return None
        line: bytes = await self._in_thread(self._segments.read, place.segment, place.offset, place.length)
        return line

    async def close(self) -> None:
        """Write what waits, then let go of the files."""
        if self._thread is None:
            return
        self._closing.set()
        self._wake.set()
        if self._flusher is not None:
            await self._flusher
        await self._in_thread(self._segments.close)
        self._thread.shutdown()
        self._thread = None
        self.fault = "closed"

    async def _in_thread(self, call: Any, *values: Any) -> Any:
        if self._thread is None:
            raise RecordUnavailable
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *values)

    def _seen(self, line: Line, fields: Mapping[str, object]) -> None:
        if fields.get("event") != "outcome":
            return
        tenant = fields.get("tenant")
        self._remember(
            str(fields.get("id")),
            Place(
                int(line.file.stem), line.offset, len(line.data), tenant if isinstance(tenant, str) else None
            ),
        )

    def _remember(self, record: str, place: Place) -> None:
        self._index[record] = place
        if len(self._index) > self._cadence.receipts:
            del self._index[next(iter(self._index))]

    async def _flush(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._queue = self._queue, []
            if not batch:
                if self._closing.is_set():
                    return
                continue
            data = b"".join(entry.line + b"\n" for entry in batch)
            try:
                segment, offset = await self._in_thread(self._segments.write, data)
            except OSError as error:
                self._lose(batch, error)
                await self._recover()
            else:
                self._settle(batch, segment, offset)
            if self._queue or self._closing.is_set():
                self._wake.set()

    def _settle(self, batch: list[_Entry], segment: int, offset: int) -> None:
        for entry in batch:
            if entry.outcome:
                self._remember(entry.id, Place(segment, offset, len(entry.line), entry.tenant))
            offset += len(entry.line) + 1
            if not entry.durable.done():
                entry.durable.set_result(True)
        before = self._durable.seq if self._durable is not None else 0
        self._durable = Tail(before + len(batch), batch[-1].digest)

    def _lose(self, batch: list[_Entry], error: OSError) -> None:
        """The chain goes back to what is on disk; everybody who waited fails closed."""
        self.fault = error.strerror or type(error).__name__
        _log.error("records: %d lines could not be written: %s", len(batch) + len(self._queue), self.fault)
        for entry in (*batch, *self._queue):
            if not entry.durable.done():
                entry.durable.set_result(False)
        self._queue = []
        self._next = self._durable

    async def _recover(self) -> None:
        while not self._closing.is_set():
            try:
                await asyncio.wait_for(self._closing.wait(), self._cadence.retry_seconds)
            except TimeoutError:
                try:
                    await self._in_thread(self._segments.rewind)
                except OSError:
                    continue
                self.fault = None
                _log.warning("records: the disk accepts writes again")
                return


async def durable(written: asyncio.Future[bool]) -> None:
    """Wait until a line is on disk. Raises RecordUnavailable."""
    if not await written:
        raise RecordUnavailable
