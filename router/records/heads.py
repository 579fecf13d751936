"""Signed heads of the record chain, for the registry's log: from then on no line disappears unseen."""

import asyncio
import hashlib
import logging
from contextlib import suppress

from registry.catalog.errors import RecordHeadRegressed
from registry.clock import Clock, stamp
from registry.digests import Digest
from registry.errors import RecordChainForked, TenonError
from registry.log.merkle import Frontier, leaf_hash
from registry.models import RecordHead
from registry.shipping import KnownHead
from registry.signing.keys import Signer
from registry.signing.types import RECORD_HEAD
from router.errors import RecordUnavailable
from router.limits import Cadence
from router.ports import HeadSink
from router.records.log import RecordLog
from router.records.reading import find, read
from router.records.segments import Tail
from router.records.start import beginning

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5
"""How often the number of new records is looked at; a head may be this much later than asked."""
_SUBMIT_SECONDS = 30.0
_FIRST_SECONDS = 2.0
"""A start waits so long for the registry's first word. Without it the router runs, and is not ready."""
_FAREWELL_SECONDS = 2.0


class Heads:
    """Signs the newest durable line every ``head_seconds`` or ``head_records``, if there is a new one.

    Each head continues the one before it in the registry. Where the registry knows more than is here, or
    something else, there are two chains under one name: no line is taken then, and the router is not ready.
    """

    def __init__(
        self, *, log: RecordLog, sink: HeadSink, signer: Signer, writer: str, clock: Clock, cadence: Cadence
    ) -> None:
        self._log = log
        self._sink = sink
        self._signer = signer
        self._writer = writer
        self._clock = clock
        self._cadence = cadence
        self._known: KnownHead | None = None
        """What the next head continues, as far as is known here."""
        self._sure = False
        """The registry said so, and nothing has gone wrong since."""
        self._tree = Frontier()
        """Over the digests of lines that no accepted head covers."""
        self._pending = bytearray()
        """Digests that are not in the tree yet."""
        self._told = ""
        self.refused = False
        """The registry knows another chain of this writer."""
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def sealed(self) -> int:
        """Durable lines that an accepted head covers; 0 until the registry was heard."""
        return self._known.seq + 1 if self._known is not None else 0

    @property
    def unsent(self) -> int:
        """Durable lines that no accepted head covers."""
        tail = self._log.durable
        return max(0, tail.seq - self.sealed) if tail is not None else 0

    async def start(self) -> None:
        """No line is taken until the registry has said that this is the writer's chain."""
        self._log.hold("the registry has not said yet how far it knows this chain")
        self._asked.clear()
        self._task = asyncio.create_task(self._run())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._asked.wait(), _FIRST_SECONDS)

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
        """Send a head for what is on disk now, unless one covers it. A refusal is told and tried again."""
        try:
            async with asyncio.timeout(_SUBMIT_SECONDS):
                try:
                    await self._send()
                except RecordHeadRegressed:  # it knows what it did not: our last head, or another's
                    self._sure = False
                    await self._send()
        except RecordChainForked as error:
            self._refuse(error)
        except Exception as error:  # the sink is somebody else's; whatever it raises, the head is due again
            self._sure = False
            _log.warning("records: no head was accepted: %s", _why(error))
        else:
            self.refused, self._told = False, ""
            self._log.hold(None)

    async def _send(self) -> None:
        if not self._sure:
            await self._settle()
        tail, known = self._log.durable, self._known
        if tail is None or known is None or tail.seq <= self.sealed:
            return
        await self._grow()
        head = RecordHead(
            writer=self._writer,
            seq=tail.seq - 1,
            digest=tail.digest,
            at=stamp(self._clock.now()),
            first=known.seq + 1,
            root=Digest(f"sha256:{self._tree.root().hex()}"),
            after=known.digest,
        )
        envelope = self._signer.sign(RECORD_HEAD, head.canonical())
        await self._sink.submit(envelope)
        self._known = KnownHead(writer=self._writer, seq=head.seq, digest=head.digest)
        self._tree = Frontier()
        with suppress(OSError, RecordUnavailable):  # it only makes the next start surer
            await self._log.keep_head(envelope)

    async def _settle(self) -> None:
        """Ask what the next head continues, and look whether this chain holds it.

        Raises RecordChainForked, RecordCorrupt, and what the sink raises.
        """
        if self._known is not None:  # while the registry is away, what waits takes no more room than a tree
            await self._grow()
        known = await self._sink.known(self._writer)
        if known != self._known:
            self._known = None
            self._log.unsealed()  # of the lines that are read again
            self._pending.clear()
            self._tree = await self._grown_since(known, self._log.durable)
            self._known = known
        self._sure = True

    async def _grown_since(self, known: KnownHead, tail: Tail | None) -> Frontier:
        """A tree over all lines after ``known`` up to ``tail``."""
        end = tail.seq if tail is not None else 0
        if known.seq >= end:
            raise RecordChainForked(
                f"the registry knows {self._writer} up to record {known.seq}, and here are {end} records",
                writer=self._writer,
            )
        folder, tree = self._log.folder, Frontier()
        if not end:
            return tree
        start = await asyncio.to_thread(beginning, folder, self._writer)
        if known.seq < start.seq - 1:
            raise RecordChainForked(
                f"the registry knows {self._writer} up to record {known.seq}, and the records up to "
                f"{start.seq - 1} were pruned",
                writer=self._writer,
            )
        if known.seq == start.seq - 1 and known.digest != start.digest:
            raise self._another(known)
        place, seq = await asyncio.to_thread(find, folder, max(start.seq, known.seq))
        while seq < end:
            lines, place = await asyncio.to_thread(read, folder, place, end - seq)
            digests = [hashlib.sha256(line[:-1]).digest() for line in lines]
            if 0 <= (at := known.seq - seq) < len(lines) and digests[at].hex() != known.digest.hex:
                raise self._another(known)
            tree = await asyncio.to_thread(grown, tree, b"".join(digests[max(0, at + 1) :]))
            seq += len(lines)
        return tree

    def _another(self, known: KnownHead) -> RecordChainForked:
        return RecordChainForked(
            f"record {known.seq} of {self._writer} is not the one that the registry knows",
            writer=self._writer,
        )

    async def _grow(self) -> None:
        """In a thread: at full load a head covers thousands of lines, at 2 µs each."""
        _, digests = self._log.unsealed()
        self._pending += digests
        size = len(self._pending)
        self._tree = await asyncio.to_thread(grown, self._tree, bytes(self._pending[:size]))
        del self._pending[:size]

    def _refuse(self, error: RecordChainForked) -> None:
        self._sure, self.refused = False, True
        self._log.hold(f"{error.code}: {error.message}; {error.hint}")
        if error.message != self._told:
            self._told = error.message
            _log.error("records: %s: %s; %s", error.code, error.message, error.hint)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        await self.submit()
        self._asked.set()
        last = loop.time()
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self._cadence.head_seconds))
            unheard = self._known is None and not self.refused
            many = not self.refused and self.unsent >= self._cadence.head_records
            if unheard or many or loop.time() - last >= self._cadence.head_seconds:
                last = loop.time()
                await self.submit()


def _why(error: Exception) -> str:
    return f"{error.code}: {error.message}" if isinstance(error, TenonError) else type(error).__name__


def grown(tree: Frontier, digests: bytes) -> Frontier:
    """``tree`` with a leaf for each line's digest (32 bytes each); ``tree`` itself stays as it is."""
    tree = Frontier(tree.size, tree.peaks)
    for start in range(0, len(digests), 32):
        tree.append(leaf_hash(digests[start : start + 32]))
    return tree
