"""Who used what: counted by routers, kept beside the log, because a bill needs sums and no proofs."""

from typing import Literal, TypeAlias

from pydantic import Field

from registry.canonical import Document, later
from registry.digests import Digest
from registry.names import Name

By: TypeAlias = Literal["version", "day"]
"""What a sum is of: over the other one it is summed."""
MOST = 2**53
"""The largest integer that JSON readers agree on (RFC 8259, section 6)."""


class UsageLine(Document):
    """What one version did for one tenant on one UTC day."""

    tenant: Name
    adapter: Name
    version: Digest
    day: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    requests: int = Field(ge=0, le=MOST)
    prompt_tokens: int = Field(ge=0, le=MOST)
    completion_tokens: int = Field(ge=0, le=MOST)


class UsageSum(Document):
    """Of one version and day, or of all days (``day`` null), or of all versions (``version`` null)."""

    tenant: Name
    adapter: Name | None
    version: Digest | None
    day: str | None
    requests: int = Field(ge=0)
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)

    @property
    def key(self) -> str:
        """Its place in a list of sums."""
        return " ".join(part for part in (self.day, self.adapter, self.version) if part is not None)


class UsageBatch(Document):
    """Counted by one writer since its batch before; sending the newest one twice counts it once.

    A writer sends in order: the next batch only after the answer to the one before. One that starts again
    asks for its newest ``seq``, and says in ``after`` which one it was told.
    """

    writer: str = Field(min_length=1, max_length=200)
    seq: int = Field(ge=0)
    after: int | None = later(None, ge=-1)
    """The batch is refused unless this is the seq of the newest one (-1: there is none). None: any before."""
    lines: tuple[UsageLine, ...] = Field(max_length=10_000)


class UsageCounted(Document):
    """How far a writer was counted."""

    writer: str
    seq: int = Field(ge=-1)
    """Of its newest batch; -1 before any."""
