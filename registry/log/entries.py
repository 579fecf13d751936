"""One line of the log, and the signed summary of all lines so far."""

from typing import Any, Literal

from pydantic import Field, model_validator

from registry.canonical import Document, encode
from registry.digests import Digest


class Entry(Document):
    """One state change. Its canonical bytes are the data of a Merkle leaf (:mod:`registry.log.merkle`)."""

    index: int = Field(ge=0)
    """Position in the log, from 0 and without gaps."""
    at: str
    """RFC 3339 UTC, see :func:`registry.clock.stamp`."""
    actor: str
    """Who did it: a key id, ``system`` or an engine's name."""
    kind: str
    """What happened, ``noun.verb``: ``alias.move``."""
    subject: str
    """What it happened to, as people write it: a ref, a tenant, a digest."""
    body: dict[str, Any]
    """The new state, complete enough to rebuild the catalog from the log alone."""
    salt: str = Field(default="", pattern=r"^([0-9a-f]{32})?$")
    """128 random bits. A proof shows the hash of the entry beside the proven one, which may be another
    tenant's: without salt, whoever gets it could try out what that entry says. Older entries have none."""

    def canonical(self) -> bytes:
        return _without(self, "salt", empty="")


class TipsRoot(Document):
    """What a head says about completeness: see :mod:`registry.log.tips`."""

    size: int = Field(ge=0)
    """How many tenants have entries."""
    root: Digest


class Head(Document):
    """The log at ``size`` entries. Signed by the key of the role ``log`` that was in force there."""

    kind: Literal["tenon.log-head/v1", "tenon.log-head/v2"] = "tenon.log-head/v1"
    size: int = Field(ge=0)
    root: Digest
    at: str
    tenants: TipsRoot | None = None
    """None in v1 heads only."""

    @model_validator(mode="after")
    def _version(self) -> "Head":
        if (self.tenants is None) != (self.kind == "tenon.log-head/v1"):
            raise ValueError("a v2 head, and no other, says how many entries each tenant has")
        return self

    def canonical(self) -> bytes:
        return _without(self, "tenants", empty=None)


def _without(document: Document, field: str, *, empty: object) -> bytes:
    """The bytes that the document had before it knew the field, when the field says nothing."""
    value = document.model_dump(mode="json")
    if value[field] == empty:
        del value[field]
    return encode(value)
