"""W3C Trace Context's ``traceparent`` (level 1), taken from a client and made for an engine.

Only its two ids travel on: ``tracestate`` and ``baggage`` are free text of the client's, and engines have no
business with it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_HEX = frozenset("0123456789abcdef")
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class Sent:
    """What a client sent."""

    trace: str
    span: str
    sampled: bool


@dataclass(frozen=True, slots=True)
class Context:
    """Where a request stands in a trace: ids in lower-case hex."""

    trace: str
    parent: str | None
    """The client's span, when it sent one."""
    span: str
    """Ours: the request."""
    child: str
    """Ours: asking the engine."""

    @property
    def header(self) -> bytes:
        """What the engine is sent: a fresh child."""
        return f"00-{self.trace}-{self.child}-01".encode("ascii")


def read(values: Sequence[str]) -> Sent | None:
    """None for a header that is missing, repeated or malformed: the standard starts a new trace then."""
    if len(values) != 1:
        return None
    parts = values[0].strip(" \t").split("-")
    if len(parts) < 4 or [len(part) for part in parts[:4]] != [2, 32, 16, 2]:
        return None
    version, trace, span, flags = parts[:4]
    if not _HEX.issuperset(version + trace + span + flags) or version == "ff":
        return None
    if version == "00" and len(parts) != 4:
        return None
    if trace == "0" * 32 or span == "0" * 16:
        return None
    return Sent(trace, span, bool(int(flags, 16) & _SAMPLED))


def begin(sent: Sent | None, ratio: float, entropy: Callable[[int], bytes]) -> Context | None:
    """The context of a request that is to be traced.

    A client's own decision against it is kept; its decision for it is none, because tracing every request
    would be a cost that a client can choose for the operator. The same trace gets the same decision in every
    router that has the same ratio.
    """
    if sent is not None and not sent.sampled:
        return None
    drawn = entropy(32)
    trace = sent.trace if sent is not None else drawn[:16].hex()
    if int(trace[16:], 16) >= ratio * (1 << 64):  # OpenTelemetry's TraceIdRatioBased: the lower 8 bytes
        return None
    return Context(trace, sent.span if sent is not None else None, drawn[16:24].hex(), drawn[24:].hex())
