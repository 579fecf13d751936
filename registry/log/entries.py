"""One line of the log, and the signed summary of all lines so far."""

from typing import Any, Literal

from pydantic import Field

from registry.canonical import Document
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


class Head(Document):
    """The log at ``size`` entries. Signed by a key with the role ``log``."""

    kind: Literal["tenon.log-head/v1"] = "tenon.log-head/v1"
    size: int = Field(ge=0)
    root: Digest
    at: str
