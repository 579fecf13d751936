"""What tenants used, told to the registry in batches that are made of the record chain and of nothing else.

The registry knows the seq up to which it has counted a writer's records; a batch says after which seq it
begins, and is refused if that is not where the registry stands. So a router that is killed, an answer that is
lost and a request that arrives late lose nothing and count nothing twice, and nothing needs to be remembered.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from registry.digests import Digest
from registry.errors import RecordCorrupt, TenonError
from registry.usage import UsageBatch, UsageLine
from router.ports import UsageSink
from router.records.log import RecordLog
from router.records.reading import find, read
from router.records.segments import Place

_log = logging.getLogger(__name__)
EVERY = 10.0
"""Seconds between two batches."""
MOST_RECORDS = 100_000
"""In one batch: 10,000 requests a second for ``EVERY`` seconds."""
MOST_LINES = 9_000
"""Different versions and days in one batch, so that it fits into what a ``UsageBatch`` may hold."""
_PATIENCE = 30.0
_FAREWELL_SECONDS = 2.0
_ANSWERED = 200


class _Key(NamedTuple):
    tenant: str
    adapter: str
    version: str
    day: str


class _Position(NamedTuple):
    """Where the next record to be counted is."""

    seq: int
    place: Place


class Tally:
    """Sums by tenant, version and UTC day."""

    def __init__(self) -> None:
        self._sums: dict[_Key, list[int]] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, record: dict[str, Any]) -> None:
        """A request counts if an engine answered it, on the day its answer was complete: wholly, or in part,
        when its client or its engine ended it. A shadow's copy is nobody's."""
        if record["event"] != "outcome" or record.get("shadow_of") or record["engine"] is None:
            return
        prompt, completion = record["prompt_tokens"], record["completion_tokens"]
        if prompt is None and record["answer_of"] != "content" and record["status"] != _ANSWERED:
            return
        key = _Key(record["tenant"], record["adapter"], record["version"], record["at"][:10])
        sums = self._sums.setdefault(key, [0, 0, 0])
        sums[0] += 1
        sums[1] += prompt or 0
        sums[2] += completion or 0

    def lines(self) -> Iterable[UsageLine]:
        for key, (requests, prompt, completion) in sorted(self._sums.items()):
            yield UsageLine(
                tenant=key.tenant,
                adapter=key.adapter,
                version=Digest(key.version),
                day=key.day,
                requests=requests,
                prompt_tokens=prompt,
                completion_tokens=completion,
            )


class UsageReports:
    """``start`` first. Costs a request nothing while it is answered: its line is read again from disk."""

    def __init__(
        self,
        sink: UsageSink,
        log: RecordLog,
        folder: Path,
        *,
        writer: str,
        every: float = EVERY,
        most: int = MOST_RECORDS,
        sealed: Callable[[], int] | None = None,
    ) -> None:
        """``folder``: of the writer's chain. ``sealed``: how many of its records the registry knows by a
        signed head; no other is counted, because it may be of another chain under the same name."""
        self._sink = sink
        self._log = log
        self._folder = folder
        self._writer = writer
        self._every = every
        self._most = most
        self._sealed = sealed
        self._next: _Position | None = None
        """None: the registry must be asked."""
        self._task: asyncio.Task[None] | None = None
        self.failed = 0
        """Batches that were not answered, or refused."""

    @property
    def waiting(self) -> int:
        """Durable records that are not known to be counted."""
        return max(0, self._end - (self._next.seq if self._next is not None else 0))

    @property
    def _end(self) -> int:
        return self._log.durable.seq if self._log.durable is not None else 0

    @property
    def _countable(self) -> int:
        return min(self._end, self._sealed()) if self._sealed is not None else self._end

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """One last batch; a registry that is gone holds nothing up for long."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        with suppress(TimeoutError):
            await asyncio.wait_for(self._heard(), _FAREWELL_SECONDS)

    async def once(self) -> None:
        """Report what is on disk now. Raises what the sink raises, and RecordCorrupt."""
        end = self._countable
        if end == 0:
            return
        at, self._next = self._next, None  # until all went well, only the registry knows where it stands
        if at is None:
            seq = await self._sink.counted(self._writer) + 1
            if seq > self._end:
                raise RecordCorrupt(f"the registry has counted {seq} records of this chain of {self._end}")
            if seq > end:  # a head that was taken is not heard of yet
                return
            at = _Position(seq, await self._found(seq))
        while at.seq < end:
            after = at.seq - 1
            tally, at = await self._tallied(at, min(end, at.seq + self._most))
            batch = UsageBatch(writer=self._writer, seq=at.seq - 1, after=after, lines=tuple(tally.lines()))
            await self._sink.count(batch)
        self._next = at

    async def _found(self, seq: int) -> Place:
        place, first = await asyncio.to_thread(find, self._folder, seq)
        while first < seq:
            lines, place = await asyncio.to_thread(read, self._folder, place, seq - first)
            first += len(lines)
        return place

    async def _tallied(self, at: _Position, end: int) -> tuple[Tally, _Position]:
        """The records from ``at`` to before ``end``, or fewer. On the loop a block at a time: a thread that
        held the interpreter would make every request wait for it."""
        tally, seq, place = Tally(), at.seq, at.place
        while seq < end and len(tally) < MOST_LINES:
            lines, place = await asyncio.to_thread(read, self._folder, place, end - seq)
            for line in lines:
                tally.add(orjson.loads(line))
            seq += len(lines)
        return tally, _Position(seq, place)

    async def _run(self) -> None:
        told = True
        while True:
            await asyncio.sleep(self._every)
            told = await self._heard(told)

    async def _heard(self, told: bool = True) -> bool:
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.once()
        except Exception as error:  # the registry is somebody else's; the records wait on disk
            self.failed += 1
            if told:
                why = error.message if isinstance(error, TenonError) else type(error).__name__
                _log.warning("usage: %s; it is reported again", why)
            return False
        return True
