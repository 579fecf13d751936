"""When a request came to each of its steps. Metrics, traces and the access log are made of this, after the
answer: on its way a request only writes numbers down."""

from dataclasses import dataclass

from router.traceparent import Context


@dataclass(slots=True)
class Moments:
    """Ticks of the router's own clock, in seconds; 0 for a step that a request never came to."""

    begun: float
    """Its headers were here."""
    read: float = 0.0
    """Its body was here; until then the client was the slow one."""
    admitted: float = 0.0
    asked: float = 0.0
    """Before the engine that answered was asked."""
    first: float = 0.0
    """The first event of the engine's stream; without streaming, its whole answer."""
    last: float = 0.0
    """The last byte that the engine had to say."""
    ended: float = 0.0
    queued: float = 0.0
    """Seconds (not a moment) spent waiting for a free place; part of ``read`` to ``asked``."""
    events: int = 0
    """Pieces of the engine's stream that carried something for the client."""
    retries: int = 0
    """Engines that could not be reached, or died under their answer, before the one that was asked last."""
    lost: float = 0.0
    """Seconds (not a moment) that those worked in vain; part of ``read`` to ``asked``."""
    url: str = ""
    """Of the engine that was asked."""
    surface: str = ""
    """Name of the endpoint, and the path that clients call."""
    path: str = ""
    context: Context | None = None
    """Where it stands in a trace; None while traces are off."""

    @property
    def whole(self) -> float:
        return max(0.0, self.ended - self.begun)

    @property
    def upstream(self) -> float:
        """How long the engine worked on it."""
        return max(0.0, self.last - self.asked) if self.asked and self.last else 0.0

    @property
    def added(self) -> float:
        """What the router itself cost: neither the client's sending, nor waiting its turn, nor the engine."""
        if not self.asked:
            return max(0.0, self.ended - (self.read or self.begun))
        before = self.asked - (self.read or self.begun) - self.queued - self.lost
        after = self.ended - self.last if self.last else 0.0
        return max(0.0, before + after)

    @property
    def first_token(self) -> float:
        """Seconds to the first token, as a client sees it; 0 where none came."""
        return max(0.0, self.first - self.begun) if self.first else 0.0
