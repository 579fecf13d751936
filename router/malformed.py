"""Bytes that were no HTTP request: refused before anybody knows whose they were, and on record all the same.

Whoever sends them needs no key, so they must neither fill the disk nor hold anybody up: one line a second for
each fault says how often it was met and when first and last. None of the bytes is kept, and no address.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from registry import canonical
from registry.clock import Clock, stamp
from registry.digests import Digest
from router.errors import RecordUnavailable
from router.records.log import RecordLog
from router.records.record import Event, Trace

_SECONDS = 1.0


class Fault(StrEnum):
    NOT_HTTP = "not_http"
    AMBIGUOUS_LENGTH = "ambiguous_length"
    """Two servers could find two ends of it: request smuggling (RFC 9112, 11.2)."""
    HEAD_TOO_LARGE = "head_too_large"
    TRAILERS_TOO_LARGE = "trailers_too_large"
    HEAD_TIMEOUT = "head_timeout"

    @property
    def status(self) -> int:
        return _STATUS.get(self, 400)


_STATUS = {Fault.HEAD_TOO_LARGE: 431, Fault.TRAILERS_TOO_LARGE: 431, Fault.HEAD_TIMEOUT: 408}


@dataclass(slots=True, kw_only=True)
class Group(Trace):
    """Of one fault; becomes one line."""

    count: int
    last_at: str

    def line(self, event: Event, *, writer: str, seq: int, prev: Digest, at: str) -> bytes:
        line = Trace.line(self, event, writer=writer, seq=seq, prev=prev, at=at)
        return canonical.encode({**canonical.decode(line), "count": self.count, "last_at": self.last_at})

    def join(self, other: "Group") -> None:
        """``other`` was met before this one."""
        self.count += other.count
        self.started_at = other.started_at


class Malformed:
    """``start`` once the log is open, ``stop`` before it closes; what is noted before or after waits."""

    def __init__(self, log: RecordLog, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._log = log
        self._clock = clock
        self._entropy = entropy
        self._groups: dict[Fault, Group] = {}
        """Not yet in the chain: five at most."""
        self._writing: set[asyncio.Future[bool]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.counts: dict[str, float] = {fault.value: 0 for fault in Fault}

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        """With everything on disk, if it takes anything."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write()
        if self._writing:
            await asyncio.wait(self._writing)

    def note(self, fault: Fault) -> None:
        """Never waits."""
        self.counts[fault] += 1
        now = stamp(self._clock.now())
        group = self._groups.get(fault)
        if group is not None:
            group.count += 1
            group.last_at = now
            return
        self._groups[fault] = Group(
            id=f"rec-{self._entropy(16).hex()}",
            status=fault.status,
            code=fault.value,
            started_at=now,
            last_at=now,
            count=1,
        )
        self._wait()

    def _wait(self) -> None:
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(_SECONDS, self._write)

    def _write(self) -> None:
        self._timer = None
        for fault, group in list(self._groups.items()):
            try:
                written = self._log.append("malformed", group)
            except RecordUnavailable:  # they go on adding up until it can be written
                self._wait()
                return
            del self._groups[fault]
            self._writing.add(written)
            written.add_done_callback(partial(self._wrote, fault, group))

    def _wrote(self, fault: Fault, group: Group, written: "asyncio.Future[bool]") -> None:
        self._writing.discard(written)
        if not written.cancelled() and written.result():
            return
        later = self._groups.setdefault(fault, group)
        if later is not group:
            later.join(group)
        self._wait()
