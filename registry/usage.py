"""Who used what: counted by routers, kept beside the log, because a bill needs sums and no proofs."""

from pydantic import Field

from registry.canonical import Document
from registry.digests import Digest
from registry.names import Name


class UsageLine(Document):
    """What one version did for one tenant on one UTC day."""

    tenant: Name
    adapter: Name
    version: Digest
    day: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    requests: int = Field(ge=0)
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class UsageBatch(Document):
    """Counted by one writer since its batch before; sending it twice counts it once."""

    writer: str = Field(min_length=1, max_length=200)
    seq: int = Field(ge=0)
    lines: tuple[UsageLine, ...] = Field(max_length=10_000)
