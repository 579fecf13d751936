"""What moving an alias may need besides a verdict: a signature, and other people's consent."""

from collections.abc import Iterable
from typing import Literal, TypeAlias

from pydantic import Field

from registry.canonical import Document, later
from registry.digests import Digest
from registry.evidence import GatePolicy
from registry.names import Name
from registry.signing.envelope import Envelope

Because: TypeAlias = Literal["full", "down", "rank", "none"]
"""Why a version is on no engine. Of those that it may be on: none has room for it, none is up, none is for
adapters as large, or there is none."""


class Protection(Document):
    """What a promotion of an alias needs besides its gate; of all the tenant's adapters.

    Traffic cannot walk around it: an alias that the tenant's rules lead to needs what the best protected one
    of the tenant needs (:func:`strongest`).
    """

    tenant: Name
    alias: Name
    approvals: int = Field(default=0, ge=0, le=5)
    """People other than who proposed it (four eyes: 1)."""
    release_signature: bool = False
    """The move must be signed by a trusted key with the role ``release``."""


def strongest(tenant: str, alias: str, protections: Iterable[Protection]) -> Protection:
    """All that any of ``protections`` asks for, asked of ``alias``."""
    known = tuple(protections)
    return Protection(
        tenant=tenant,
        alias=alias,
        approvals=max((each.approvals for each in known), default=0),
        release_signature=any(each.release_signature for each in known),
    )


def weaker(one: Protection, other: Protection) -> bool:
    """Whether ``one`` lacks anything that ``other`` asks for."""
    return one.approvals < other.approvals or (other.release_signature and not one.release_signature)


class Preparation(Document):
    """The first half of a promotion: engines load and attest a version before anybody is answered by it.

    It is in force until the alias moves (its epoch is then above ``epoch``) or ``until`` passes.
    """

    tenant: Name
    adapter: Name
    alias: Name
    version: Digest
    epoch: int = Field(ge=0)
    """The alias's when it was prepared; 0: there is no alias yet."""
    until: str = Field(max_length=40)
    """RFC 3339 UTC."""


def in_force(preparation: Preparation, *, epoch: int, now: str) -> bool:
    """``epoch``: the alias's now, 0 when there is none; ``now`` as :func:`registry.clock.stamp` spells it."""
    return epoch <= preparation.epoch and now < preparation.until


class Readiness(Document):
    """Whether everybody could be answered by a version the moment an alias moves to it."""

    version: Digest
    ready: bool
    """Also where its base never had an engine: then nobody waits for a load. Where all are down, somebody
    does: whether they will be seen to behave as it, nobody knows yet."""
    engines: int = Field(ge=0)
    """Of its base, that are up."""
    wanted: int = Field(ge=0)
    """Of these, those that are to hold it."""
    attested: int = Field(ge=0)
    """Of the wanted, those that were seen to behave as it."""
    prepared_until: str | None = Field(default=None, max_length=40)
    """None: no preparation of it is in force, so no engine loads it for this alias."""
    down: int = later(0, ge=0)
    """Engines of its base that are known and not up."""
    restarts: bool = later(default=False)
    """Nobody can hold it before the alias moves: an engine of the tenant's own starts again then, with it
    merged into the weights."""
    because: Because | None = later(None)
    """Why no engine is to hold it, where one should."""
    grow: int = later(0, ge=0)
    """Of the wanted, those whose boots have too small slots: they start afresh before they can hold it."""
    alone: bool = later(default=False)
    """Whether no other engine that is up could serve meanwhile what these serve."""
    waits_for: dict[Name, bool] | None = None
    """Wanted engine -> attested on it; None for whoever may not know the engines by name."""
    failed: dict[Name, str] | None = later(None)
    """Wanted engine that is up -> what it found wrong when it looked at the version: its boot will never
    serve it. None where nothing is known, and for whoever may not know the engines by name."""

    def anonymous(self) -> "Readiness":
        """For whoever may not know the engines by name."""
        return self.model_copy(update={"waits_for": None, "failed": None})


class WayBack(Document):
    """Where a roll back would lead now."""

    version: Digest
    """The alias's own where it has canaries: these end, and it stays."""
    epoch: int = Field(ge=1)
    """The alias's: a roll back that names it leads there or nowhere."""


class Proposal(Document):
    """A promotion that waits for approval. Its gate passed when it was proposed, and is asked again."""

    id: Name
    tenant: Name
    adapter: Name
    alias: Name
    version: Digest
    percent: float = Field(default=100, gt=0, le=100)
    """Less than 100: the version becomes a canary beside the stable one."""
    expires_at: str | None = Field(default=None, max_length=40)
    """Of the alias, once it has moved."""
    epoch: int = Field(ge=0)
    """The alias's when it was proposed: a move in between voids the proposal."""
    gate: GatePolicy
    release: Envelope | None = None
    proposed_by: str
    proposed_at: str
    approved_by: tuple[str, ...] = ()
    state: Literal["open", "done", "rejected", "void"] = "open"


class Release(Document):
    """What a release key signs to move an alias, and nothing else can be made of it."""

    kind: Literal["tenon.release/v1"] = "tenon.release/v1"
    tenant: Name
    adapter: Name
    alias: Name
    version: Digest
    percent: float = Field(default=100, gt=0, le=100)
    expires_at: str | None = Field(default=None, max_length=40)
    epoch: int = Field(ge=0)
    """The epoch that the signer saw, 0 for an alias that does not exist yet: a signature works once."""
