"""Refusals that cost whoever causes them nothing: counted, one line a second for each kind of them.

Bytes that were no request and requests of nobody who is known need no key, and a key can be refused as fast
as it asks: neither may fill the disk or hold anybody up. A line says how often its refusal was met and when
first and last. Nothing of what was sent is kept, and no address.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import orjson

from registry.clock import Clock, stamp
from registry.digests import Digest
from router.errors import RecordUnavailable
from router.records.log import RecordLog
from router.records.record import Event, Trace

_SECONDS = 1.0


class _Kind(NamedTuple):
    event: Event
    tenant: str | None
    key: str | None
    code: str


@dataclass(slots=True, kw_only=True)
class Group(Trace):
    """Of one kind; becomes one line."""

    count: int
    last_at: str

    def line(self, event: Event, *, writer: str, seq: int, prev: Digest, at: str) -> bytes:
        line = Trace.line(self, event, writer=writer, seq=seq, prev=prev, at=at)
        fields = {**orjson.loads(line), "count": self.count, "last_at": self.last_at}
        return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)  # canonical for what a record holds

    def join(self, other: "Group") -> None:
        """``other`` was met before this one."""
        self.count += other.count
        self.started_at = other.started_at


class Groups:
    """``start`` once the log is open, ``stop`` before it closes; what is noted before or after waits."""

    def __init__(self, log: RecordLog, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._log = log
        self._clock = clock
        self._entropy = entropy
        self._groups: dict[_Kind, Group] = {}
        """Not yet in the chain: at most one for each key and code, and a few of nobody's."""
        self._met: set[_Kind] = set()
        """Of tenants, in this second."""
        self._writing: set[asyncio.Future[bool]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

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

    def count(self, refused: Trace) -> bool:
        """Whether it is ``counted`` now. Else it is the first with its key and code in this second, and is to
        leave a record of its own. Never waits."""
        assert refused.code is not None
        assert refused.status is not None
        kind = _Kind("refused", refused.tenant, refused.key, refused.code)
        if refused.tenant is not None and kind not in self._met:
            self._met.add(kind)
            self._wait()
            return False
        self._note(kind, refused.status)
        refused.counted = True
        return True

    def malformed(self, code: str, status: int) -> None:
        """Never waits."""
        self._note(_Kind("malformed", None, None, code), status)

    def _note(self, kind: _Kind, status: int) -> None:
        now = stamp(self._clock.now())
        group = self._groups.get(kind)
        if group is not None:
            group.count += 1
            group.last_at = now
            return
        self._groups[kind] = Group(
            id=f"rec-{self._entropy(16).hex()}",
            tenant=kind.tenant,
            key=kind.key,
            status=status,
            code=kind.code,
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
        self._met.clear()
        for kind, group in list(self._groups.items()):
            try:
                written = self._log.append(kind.event, group)
            except RecordUnavailable:  # they go on adding up until it can be written
                self._wait()
                return
            del self._groups[kind]
            self._writing.add(written)
            written.add_done_callback(partial(self._wrote, kind, group))

    def _wrote(self, kind: _Kind, group: Group, written: "asyncio.Future[bool]") -> None:
        self._writing.discard(written)
        if not written.cancelled() and written.result():
            return
        later = self._groups.setdefault(kind, group)
        if later is not group:
            later.join(group)
        self._wait()
