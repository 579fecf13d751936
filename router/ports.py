"""What the data plane needs from outside. Fakes for all of it: ``router.testing``."""

from collections.abc import AsyncIterator
from typing import Protocol

from registry.feed import News, Position
from registry.signing.envelope import Envelope


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

    async def submit(self, envelope: Envelope) -> None:
        """Returns once the head is stored for good; raises otherwise, and the head is sent again."""
        ...


class EngineAnswer(Protocol):
    """An engine's answer whose status is known and whose body is still arriving."""

    @property
    def status(self) -> int: ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body, as it arrives. Raises EngineInterrupted, EngineTimeout."""
        ...

    async def close(self) -> None:
        """Give the connection up; one with an unread body is cut, which makes the engine stop generating."""
        ...


class Engines(Protocol):
    """The way to the engines."""

    async def start(self) -> None: ...

    async def ask(self, url: str, body: bytes) -> EngineAnswer:
        """POST ``body`` (JSON) to an absolute ``url`` and wait for the status line.

        Raises NothingSent when no connection could be opened (asking another engine is then safe),
        EngineUnavailable when the connection broke later, EngineTimeout.
        """
        ...

    async def stop(self) -> None: ...
