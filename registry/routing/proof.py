"""What a proof says: every case of every tenant and model, and what is wrong with any of them."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from registry.canonical import Document
from registry.digests import Digest
from registry.names import Name
from registry.routing.choice import Refusal


class Flaw(StrEnum):
    """Stable words: they are in answers of the HTTP API and in what ``--json`` prints."""

    FOREIGN_ADAPTER = "foreign_adapter"
    FOREIGN_VERSION = "foreign_version"
    """Through an alias: its stable version, a canary or a shadow is not one of that adapter."""
    FOREIGN_POLICY = "foreign_policy"
    """Or one that does not exist: the two are told apart by nobody."""
    FALLS_THROUGH = "falls_through"
    """A rule answers though the request carries metadata that it does not name."""
    UNANSWERED = "unanswered"
    """Only declared metadata, everything that is required, and no rule."""
    SHADOWED = "shadowed"
    """A rule that no request reaches."""
    AMBIGUOUS = "ambiguous"
    UNDECLARED = "undeclared"
    """A rule tests a header or a value that the tenant did not declare."""
    KEY_UNCLEAR = "key_unclear"
    """A key that belongs to no known tenant, or whose secret is another's too."""
    UNUSED = "unused"
    """A declared header that no rule looks at."""
    NOT_PUSHED = "not_pushed"
    """The adapter has no version yet, or the alias points nowhere: a tenant is set up before its training."""
    REVOKED = "revoked"
    UNPROTECTED = "unprotected"
    """A rule leads to an alias that moves with less consent than another alias of the tenant."""


Severity = Literal["error", "warning"]


class Finding(Document):
    flaw: Flaw
    severity: Severity
    tenant: Name
    why: str
    """One sentence. Never names another tenant."""
    model: str = ""
    rules: tuple[str, ...] = ()
    """The rule it is about first, then those that shadow it or rival with it."""
    headers: tuple[tuple[str, str], ...] | None = None
    """The counterexample: send these with a key of the tenant. None where no request shows it."""


class Case(Document):
    """Requests that all have the same outcome."""

    tenant: Name
    model: str
    headers: tuple[tuple[str, str], ...]
    """Of one of them; what is not named here was not sent."""
    combinations: int = Field(ge=1)
    """How many it stands for."""
    rule: str | None = None
    """None: refused."""
    adapter: str | None = None
    alias: str | None = None
    policy: Digest | None = None
    refusal: Refusal | None = None
    about: tuple[str, ...] = ()
    """Headers that the refusal is about."""


class Proof(Document):
    tenants: int
    keys: int
    """That open a tenant; each reaches what its tenant reaches, and nothing else is looked at."""
    combinations: int
    """Of public model and headers, where a header is absent, has one of its declared values, has any other
    value, or comes more than once."""
    cases: tuple[Case, ...] = ()
    findings: tuple[Finding, ...] = ()
    """Errors first."""
    more: int = 0
    """Findings beyond those that are listed."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    @property
    def holds(self) -> bool:
        return not self.errors
