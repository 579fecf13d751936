"""Signed heads of the record chain, for the registry's log: from then on no line disappears unseen."""

import asyncio
import logging
from contextlib import suppress
from typing import Literal

from pydantic import Field

from registry.canonical import Document
from registry.clock import Clock, stamp
from registry.digests import Digest
from registry.signing.keys import Signer
from registry.signing.types import RECORD_HEAD
from router.limits import Cadence
from router.ports import HeadSink
from router.records.log import RecordLog

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5
"""How often the number of new records is looked at; a head may be this much later than asked."""
_SUBMIT_SECONDS = 30.0
_FAREWELL_SECONDS = 5.0


class RecordHead(Document):
    kind: Literal["tenon.record-head/v1"] = "tenon.record-head/v1"
    writer: str
    seq: int = Field(ge=0)
    """Of the last line that the head covers."""
    digest: Digest
    """Of that line."""
    at: str


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
        head = RecordHead(
            writer=self._writer, seq=tail.seq - 1, digest=tail.digest, at=stamp(self._clock.now())
        )
        try:
            async with asyncio.timeout(_SUBMIT_SECONDS):
                await self._sink.submit(self._signer.sign(RECORD_HEAD, head.canonical()))
        except Exception as error:  # the sink is somebody else's; whatever it raises, the head is due again
            _log.warning("records: the head of seq %d was not accepted: %s", head.seq, type(error).__name__)
        else:
            self._sent = tail.seq

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self._cadence.head_seconds))
            if self.unsent >= self._cadence.head_records or loop.time() - last >= self._cadence.head_seconds:
                last = loop.time()
                await self.submit()
