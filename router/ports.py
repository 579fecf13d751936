"""What the data plane needs from outside. Fakes for all of it: ``router.testing``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from registry.counting import CountAnswer, CountReport
from registry.feed import News, Position
from registry.shipping import KnownHead
from registry.signing.envelope import Envelope
from registry.usage import UsageBatch
from router.moments import Moments
from router.traceparent import Context

if TYPE_CHECKING:  # records need HeadSink of here
    from router.records.record import Trace


class FeedSource(Protocol):
    """The registry's state, as it changes."""

    async def read(self, known: Position | None, wait: float) -> News | None:
        """What is new since ``known``: a delta that follows exactly there, or a newer snapshot.

        Waits at most ``wait`` seconds for anything, then None, which says that the registry was asked and
        had nothing new. ``known=None`` asks for whatever there is. Never tells of another log than
        ``known``'s: it raises then. May raise anything: the router keeps what it has and asks again.
        """
        ...


class HeadSink(Protocol):
    """Where signed heads of the record chain go (the registry's log)."""

    async def known(self, writer: str) -> KnownHead:
        """What the writer's next head must continue. May raise anything: it is asked again."""
        ...

    async def submit(self, envelope: Envelope) -> None:
        """Returns once the head is stored for good. Raises RecordHeadRegressed for one that does not continue
        what ``known`` says; may raise anything else: then nobody knows, and ``known`` is asked."""
        ...


class Counters(Protocol):
    """Where routers tell each other what they let through."""

    async def exchange(self, report: CountReport) -> CountAnswer:
        """Keep what ``report`` says and answer with what the others said, of the subjects it asks about.

        Reports are absolute: the same one twice, or one after its answer was lost, is counted once. May raise
        anything: the router goes on with what it heard last.
        """
        ...


class UsageSink(Protocol):
    """Where it is kept what tenants used (the registry's database)."""

    async def counted(self, writer: str) -> int:
        """The seq of the writer's newest batch; -1 when it never sent one."""
        ...

    async def count(self, batch: UsageBatch) -> bool:
        """Add the batch, once: False if this very batch was counted before. Raises for one that does not
        follow the newest (``batch.after``), and may raise anything else: then nobody knows."""
        ...


class EngineAnswer(Protocol):
    """An engine's answer whose status is known and whose body is still arriving."""

    @property
    def status(self) -> int: ...

    async def read(self) -> bytes:
        """All that arrived since the last call, or what arrives next; empty at the end of the body.

        Raises EngineDied, EngineFailed, EngineTimeout; what came before is read before that.
        """
        ...

    async def close(self) -> None:
        """Give the connection up; one with an unread body is cut, which makes the engine stop generating."""
        ...


class Engines(Protocol):
    """The way to the engines."""

    async def start(self) -> None: ...

    async def ask(self, url: str, body: bytes, traceparent: bytes = b"") -> EngineAnswer:
        """POST ``body`` (JSON) to an absolute ``url`` and wait for the status line. ``traceparent``, if
        given, is the only header that differs between requests.

        Raises NothingSent when no connection could be opened (asking another engine is then safe),
        EngineUnavailable when the connection broke later, EngineTimeout.
        """
        ...

    async def stop(self) -> None: ...


class Spans(Protocol):
    """``router.tracing.Tracing``, named here because importing it costs 0.2 s and is wanted by few."""

    @property
    def dropped(self) -> int: ...

    def begin(self, sent: Sequence[str]) -> Context | None: ...

    def finished(self, trace: "Trace", moments: Moments) -> None: ...

    def close(self) -> None: ...


class Peers(Protocol):
    """The other routers of a deployment, each of which holds the records of the answers it gave."""

    async def receipt(self, record: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
        """The receipt of ``record`` by the router that holds it, asked with the caller's own ``headers``.

        None when every other router says that it is none of theirs or not the caller's. Raises
        ReceiptUnavailable when nobody has it and somebody who may could not be asked.
        """
        ...

    async def close(self) -> None: ...
