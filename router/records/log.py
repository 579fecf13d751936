"""record: lines enter the chain in order, and wait together for one write and one fsync (group commit)."""

import asyncio
import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from registry.clock import Clock
from registry.digests import Digest
from registry.errors import InvalidDocument, RecordCorrupt, SignatureInvalid
from registry.models import PublicKey, RecordHead
from registry.signing.envelope import Envelope, verify
from registry.signing.types import RECORD_HEAD
from router.errors import RecordUnavailable
from router.limits import Cadence
from router.records.index import Index
from router.records.record import Event, Trace
from router.records.scribe import Scribe
from router.records.segments import Place, Sealed, Segments, Tail
from router.stamps import Stamps

_log = logging.getLogger(__name__)


class _Batch:
    """Lines that go to disk with one fsync, in columns: a request appends to five lists and makes no object
    but its future. (One future for the batch would save 0.2 µs a request, and let whoever is cancelled while
    waiting for it cancel the waiting of all others.)"""

    __slots__ = ("digests", "durable", "lines", "shown")

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.shown: list[Trace | None] = []
        """Outcomes of tenants; None for what has no receipt."""
        self.durable: list[asyncio.Future[bool]] = []
        self.digests = bytearray()
        """32 bytes a line."""


class RecordLog:
    """One writer's chain. ``open`` first, ``close`` last; everything on one event loop."""

    def __init__(
        self,
        segments: Segments,
        *,
        writer: str,
        clock: Clock,
        cadence: Cadence,
        key: PublicKey | None = None,
    ) -> None:
        """``key``: that heads of this chain are signed with; with it, a start notices a chain whose end was
        cut off behind the last head that the registry took."""
        self._segments = segments
        self._writer = writer
        self._clock = clock
        self._cadence = cadence
        self._stamps = Stamps()
        self._key = key
        self._index = Index(cadence.receipts)
        self._some: list[Place] = []
        """Of an outcome, any."""
        self._queue = _Batch()
        self._written: _Batch | None = None
        """With the scribe now."""
        self._due = False
        self._scribe: Scribe | None = None
        self._quiet = asyncio.Event()
        """Nothing waits and nothing is being written."""
        self._quiet.set()
        self._closing = asyncio.Event()
        self._thread: ThreadPoolExecutor | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._seq = 0
        self._prev: Digest | None = None
        """Of the next line. Not a Tail: one would be made for every line."""
        self._durable: Tail | None = None
        self._unsealed = bytearray()
        self._unsealed_from = 0
        self._broken: str | None = "not open"
        """Why the disk cannot be written."""
        self._held: str | None = None
        self.fault: str | None = self._broken
        """Why nothing can be written now; None while all is well."""

    async def open(self) -> None:
        """Resume the chain on disk. Raises RecordCorrupt, OSError."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="records")
        try:
            self._durable = await self._in_thread(self._resume)
        except BaseException:
            self._thread.shutdown()
            raise
        self._seq, self._prev = self._durable
        self._breaks(None)
        self._loop = asyncio.get_running_loop()
        self._scribe = Scribe(self._write, self._wrote)

    @property
    def durable(self) -> Tail | None:
        """The chain as it is on disk: ``seq`` lines, the last of which has ``digest``."""
        return self._durable

    @property
    def waiting(self) -> int:
        """Lines not yet on disk."""
        return len(self._queue.lines)

    @property
    def folder(self) -> Path:
        return self._segments.folder

    def hold(self, why: str | None) -> None:
        """Take no line for as long as ``why`` is so: this may not be the writer's chain."""
        self._held = why
        self.fault = self._broken or self._held

    def check(self) -> None:
        """Raises RecordUnavailable while nothing can be written: no engine is asked for what would leave
        without a record."""
        if self.fault is not None or self._closing.is_set():
            raise RecordUnavailable

    def append(self, event: Event, trace: Trace) -> asyncio.Future[bool]:
        """Put a line into the chain; the future tells whether it reached the disk.

        Raises RecordUnavailable at once while the disk is known to fail.
        """
        prev = self._prev
        if self.fault is not None or prev is None or self._closing.is_set():
            raise RecordUnavailable
        line = trace.line(
            event, writer=self._writer, seq=self._seq, prev=prev, at=self._stamps(self._clock.now())
        )
        hashed = hashlib.sha256(line)
        durable: asyncio.Future[bool] = self._loop.create_future()
        queue = self._queue
        queue.lines.append(line)
        queue.shown.append(trace if event == "outcome" else None)
        queue.durable.append(durable)
        queue.digests += hashed.digest()
        self._seq += 1
        self._prev = str.__new__(Digest, "sha256:" + hashed.hexdigest())
        if not self._due and self._written is None:
            self._due = True
            self._quiet.clear()
            self._loop.call_soon(self._hand_over)  # with all that this round of the loop still brings
        return durable

    async def read(self, record: str, tenant: str) -> bytes | None:
        """The exact outcome line; None when there is none **or** it is another tenant's."""
        # A record that does not exist costs a look at the disk too: the time must not tell it from another's.
        for place in list(self._index.find(tenant, record)) or self._some:
            try:
                line: bytes = await self._in_thread(self._segments.read, place)
            except FileNotFoundError:  # pruned
                continue
            if b'"id":"%b",' % record.encode() in line:
                return line if b'"tenant":"%b",' % tenant.encode() in line else None
        return None

    def unsealed(self) -> tuple[int, bytes]:
        """(seq of the first, digests) of durable lines since this was last asked, or since the head that was
        kept: 32 bytes each."""
        first, digests = self._unsealed_from, bytes(self._unsealed)
        self._unsealed_from += len(digests) // 32
        self._unsealed.clear()
        return first, digests

    async def keep_head(self, head: Envelope) -> None:
        """The registry took it; the next start will ask for a chain that fits."""
        await self._in_thread(self._segments.keep_head, head.canonical())

    async def close(self) -> None:
        """Write what waits, then let go of the files."""
        if self._thread is None:
            return
        self._closing.set()
        await self._quiet.wait()
        if self._recovery is not None:
            await self._recovery
        if self._scribe is not None:
            await self._scribe.stop()
        await self._in_thread(self._segments.close)
        self._thread.shutdown()
        self._thread = None
        self._breaks("closed")

    async def _in_thread(self, call: Any, *values: Any) -> Any:
        if self._thread is None:
            raise RecordUnavailable
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *values)

    def _resume(self) -> Tail:
        sealed = self._sealed()
        since = sealed.seq if sealed is not None else -1
        self._unsealed_from = since + 1

        def seen(line: bytes, place: Place, seq: int, digest: Digest) -> None:
            if seq > since:
                if not self._unsealed:
                    self._unsealed_from = seq
                self._unsealed.extend(bytes.fromhex(digest[7:]))
            if b'"event":"outcome"' in line and b'"tenant":"' in line:
                self._index.add(_text(line, b'"tenant":"'), _text(line, b'"id":"'), place)

        tail = self._segments.open(seen, newest=self._cadence.receipts, sealed=sealed)
        if not self._unsealed:
            self._unsealed_from = tail.seq
        return tail

    def _sealed(self) -> Sealed | None:
        data = self._segments.head()
        if data is None or self._key is None:
            return None
        try:
            trusted = {self._key.id: self._key}
            payload = verify(Envelope.parse(data), payload_type=RECORD_HEAD, trusted=trusted, role="router")
            head = RecordHead.parse(payload)
        except (SignatureInvalid, InvalidDocument) as error:
            # A new key, or a file that somebody wrote. The registry's own heads tell: tenon log verify.
            _log.warning("records: the head kept beside the chain is not used: %s", error.message)
            return None
        if head.writer != self._writer:
            raise RecordCorrupt(f"the head beside the chain is of the writer {head.writer}")
        return Sealed(head.seq, head.digest)

    def _write(self, data: bytes) -> tuple[int, int]:
        return self._segments.write(data)

    def _hand_over(self) -> None:
        self._due = False
        batch, self._queue = self._queue, _Batch()
        if not batch.lines or self._scribe is None:
            self._quiet.set()
            return
        self._written = batch
        batch.lines.append(b"")
        data = b"\n".join(batch.lines)
        batch.lines.pop()
        self._scribe.write(data)

    def _wrote(self, found: tuple[int, int] | Exception) -> None:
        batch, self._written = self._written, None
        assert batch is not None
        if isinstance(found, Exception):
            self._lose(batch, found)
            self._recovery = asyncio.create_task(self._recover())
            self._quiet.set()
            return
        # First the next batch and those who wait: what they do next is what their clients wait for.
        self._hand_over()
        self._settle(batch, *found)

    def _settle(self, batch: _Batch, segment: int, offset: int) -> None:
        place: Place | None = None
        for durable in batch.durable:
            if not durable.done():
                durable.set_result(True)
        for line, trace in zip(batch.lines, batch.shown, strict=True):
            if trace is not None and trace.tenant is not None:
                self._index.add(trace.tenant, trace.id, place := Place(segment, offset))
            offset += len(line) + 1
        if place is not None:
            self._some = [place]
        before = self._durable.seq if self._durable is not None else 0
        last = Digest("sha256:" + batch.digests[-32:].hex())
        self._durable = Tail(before + len(batch.lines), last)
        self._unsealed += batch.digests

    def _lose(self, batch: _Batch, error: Exception) -> None:
        """The chain goes back to what is on disk; everybody who waited fails closed."""
        self._breaks(_why(error))
        lost = [*batch.durable, *self._queue.durable]
        _log.error("records: %d lines could not be written: %s", len(lost), self.fault)
        for durable in lost:
            if not durable.done():
                durable.set_result(False)
        self._queue = _Batch()
        if self._durable is not None:
            self._seq, self._prev = self._durable

    def _breaks(self, why: str | None) -> None:
        self._broken = why
        self.fault = self._broken or self._held

    async def _recover(self) -> None:
        while not self._closing.is_set():
            try:
                await asyncio.wait_for(self._closing.wait(), self._cadence.retry_seconds)
            except TimeoutError:
                try:
                    await self._in_thread(self._segments.rewind)
                except Exception as error:
                    self._breaks(_why(error))
                    continue
                self._breaks(None)
                _log.warning("records: the disk accepts writes again")
                return


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def _text(line: bytes, name: bytes) -> str:
    start = line.index(name) + len(name)
    return line[start : line.index(b'"', start)].decode()


async def durable(written: asyncio.Future[bool]) -> None:
    """Wait until a line is on disk. Raises RecordUnavailable."""
    if not await written:
        raise RecordUnavailable
