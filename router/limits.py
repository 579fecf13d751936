"""The router's settings as small frozen values; each refuses a value that would switch a protection off."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a single exchange may cost."""

    body_bytes: int = 4 << 20
    body_seconds: float = 30.0
    answer_bytes: int = 32 << 20
    """Of a whole answer, or of all events of a stream."""
    choices: int = 8

    def __post_init__(self) -> None:
        if min(self.body_bytes, self.answer_bytes, self.choices) < 1 or self.body_seconds <= 0:
            raise ValueError("every limit must be positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Patience with an engine, in seconds."""

    connect: float = 2.0
    first_byte: float = 300.0
    """Without streaming the first byte comes after the last token, so this bounds the whole generation."""
    between_chunks: float = 30.0
    whole: float = 3600.0
    """Of one exchange, whatever its engine does: its lease ends then, and the exchange with it."""

    def __post_init__(self) -> None:
        if min(self.connect, self.first_byte, self.between_chunks, self.whole) <= 0:
            raise ValueError("every timeout must be positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How old the registry's last word may be, in seconds, before the router stops trusting what it has."""

    wait: float = 5.0
    """One long poll of the feed: how often a registry with nothing to say is heard."""
    serve: float = 600.0
    """Beyond this requests are refused, since revocations may have been missed, and ``/readyz`` says no. Not
    before: where the registry is away all routers lose it at once, and none would be left to prefer."""

    def __post_init__(self) -> None:
        if not 0 < self.wait < self.serve:
            raise ValueError("freshness needs 0 < wait < serve")

    @classmethod
    def within(cls, max_staleness: float) -> "Freshness":
        """At least six chances to hear the registry before requests are refused."""
        return cls(wait=min(cls().wait, max_staleness / 6), serve=max_staleness)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """How records are written and how often their head is signed into the registry's log."""

    head_seconds: float = 10.0
    head_records: int = 1000
    segment_bytes: int = 64 << 20
    receipts: int = 200_000
    """The newest outcomes: their places are kept in memory (60 bytes each), shared by tenants; a start checks
    as many lines (12 µs each). Older ones are found with the command line only."""
    retry_seconds: float = 1.0
    """After a failed write, before the disk is tried again."""

    def __post_init__(self) -> None:
        if min(self.head_seconds, self.retry_seconds) <= 0:
            raise ValueError("head_seconds and retry_seconds must be positive")
        if min(self.head_records, self.segment_bytes, self.receipts) < 1:
            raise ValueError("head_records, segment_bytes and receipts must be positive")
