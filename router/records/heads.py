"""Signed heads of the record chain, for the registry's log: from then on no line disappears unseen."""

import asyncio
import logging
from contextlib import suppress

from registry.clock import Clock, stamp
from registry.digests import Digest
from registry.log.merkle import Frontier, leaf_hash
from registry.models import RecordHead
from registry.signing.keys import Signer
from registry.signing.types import RECORD_HEAD
from router.errors import RecordUnavailable
from router.limits import Cadence
from router.ports import HeadSink
from router.records.log import RecordLog

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5
"""How often the number of new records is looked at; a head may be this much later than asked."""
_SUBMIT_SECONDS = 30.0
_FAREWELL_SECONDS = 5.0


class Heads:
    """Signs the newest durable line every ``head_seconds`` or ``head_records``, if there is a new one."""

    def __init__(
        self, *, log: RecordLog, sink: HeadSink, signer: Signer, writer: str, clock: Clock, cadence: Cadence
    ) -> None:
        self._log = log
        self._sink = sink
        self._signer = signer
        self._writer = writer
        self._clock = clock
        self._cadence = cadence
        self._sent = 0
        self._first: int | None = None
        self._tree = Frontier()
        """Over the digests of lines that no accepted head covers, from ``_first`` on."""
        self._pending = bytearray()
        self._task: asyncio.Task[None] | None = None

    @property
    def unsent(self) -> int:
        """Durable lines that no accepted head covers."""
        tail = self._log.durable
        return tail.seq - self._sent if tail is not None else 0

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """One last head; a registry that is gone holds nothing up for long."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        with suppress(TimeoutError):
            await asyncio.wait_for(self.submit(), _FAREWELL_SECONDS)

    async def submit(self) -> None:
        """Send a head for what is on disk now, unless one covers it. A refusal is logged and tried again."""
        tail = self._log.durable
        if tail is None or tail.seq <= self._sent:
            return
        first, digests = self._log.unsealed()
        self._first = first if self._first is None else self._first
        self._pending += digests
        await self._grow()
        head = RecordHead(
            writer=self._writer,
            seq=tail.seq - 1,
            digest=tail.digest,
            at=stamp(self._clock.now()),
            first=self._first,
            root=Digest(f"sha256:{self._tree.root().hex()}"),
        )
        envelope = self._signer.sign(RECORD_HEAD, head.canonical())
        try:
            async with asyncio.timeout(_SUBMIT_SECONDS):
                await self._sink.submit(envelope)
        except Exception as error:  # the sink is somebody else's; whatever it raises, the head is due again
            _log.warning("records: the head of seq %d was not accepted: %s", head.seq, type(error).__name__)
        else:
            self._sent = tail.seq
            self._first, self._tree = tail.seq, Frontier()
            with suppress(OSError, RecordUnavailable):  # it only makes the next start surer
                await self._log.keep_head(envelope)

    async def _grow(self) -> None:
        """In a thread: at full load a head covers thousands of lines, at 2 µs each."""
        size = len(self._pending)
        self._tree = await asyncio.to_thread(grown, self._tree, bytes(self._pending[:size]))
        del self._pending[:size]

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self._cadence.head_seconds))
            if self.unsent >= self._cadence.head_records or loop.time() - last >= self._cadence.head_seconds:
                last = loop.time()
                await self.submit()


def grown(tree: Frontier, digests: bytes) -> Frontier:
    """``tree`` with a leaf for each line's digest (32 bytes each); ``tree`` itself stays as it is."""
    tree = Frontier(tree.size, tree.peaks)
    for start in range(0, len(digests), 32):
        tree.append(leaf_hash(digests[start : start + 32]))
    return tree
