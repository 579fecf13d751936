"""Request records as a registry takes them: lines of one writer's chain, in order, each once."""

from pydantic import Field

from registry import canonical
from registry.canonical import Document, later
from registry.digests import Digest

MOST_LINES = 1000
_WRITER = r"^[a-z0-9][a-z0-9-]{0,62}$"


class RecordBatch(Document):
    """Consecutive lines, the first of which has ``first`` as its seq."""

    writer: str = Field(pattern=_WRITER)
    first: int = Field(ge=0)
    lines: tuple[str, ...] = Field(min_length=1, max_length=MOST_LINES)
    """Exact, without their newlines: their digests are what the chain and the heads are made of."""


class Stored(Document):
    """How far a writer's records are there."""

    writer: str
    next: int = Field(ge=0)
    """Seq of the first that is not."""
    digest: Digest | None = later(None)
    """Of the newest that is."""


class KnownHead(Document):
    """The newest signed head of a writer in the log: the next one continues it."""

    writer: str
    seq: int = Field(ge=-1)
    """-1 before any head."""
    digest: Digest
    """Of that record; of the writer's genesis before any."""


class StoredRecord(Document):
    """A line, and what a table needs to find it by."""

    writer: str
    seq: int
    digest: Digest
    tenant: str | None
    id: str
    event: str
    at: str
    line: str


def genesis(writer: str) -> Digest:
    """What the first line of a writer's chain follows: a chain cannot be passed off as another writer's."""
    return canonical.digest_of({"kind": "tenon.record-genesis/v1", "writer": writer})
