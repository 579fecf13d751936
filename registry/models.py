"""The nouns of the catalog, as frozen documents. Words: docs/concepts/words.md."""

from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from registry.canonical import Document, decode
from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.names import LIVE, Name


class Role(StrEnum):
    """What a key may do. A trainer's key can publish and cannot move an alias."""

    INFERENCE = "inference"
    TRAINER = "trainer"
    TENANT_ADMIN = "tenant_admin"
    PLATFORM_ADMIN = "platform_admin"


class Quota(Document):
    """What a tenant may use; None is unlimited. Enforced by the router, kept here as data."""

    requests_per_minute: int | None = Field(default=None, ge=0)
    tokens_per_minute: int | None = Field(default=None, ge=0)
    """Prompt and completion together."""
    tokens_per_day: int | None = Field(default=None, ge=0)
    """UTC days."""
    concurrent_requests: int | None = Field(default=None, ge=0)


class Tenant(Document):
    id: Name
    display_name: str = Field(min_length=1, max_length=200)
    suspended: bool = False
    """Nothing of the tenant is served and none of its keys opens anything; nothing is deleted."""
    quota: Quota = Quota()


class Key(Document):
    """A credential as it is stored: the secret itself is shown once and only its hash is kept."""

    id: Name
    tenant: Name | None
    """None for a platform admin's key, and for no other."""
    role: Role
    secret_hash: Digest
    """Of the whole secret. SHA-256 suffices: the secret is 256 random bits, not a password."""
    revoked: bool = False
    expires_at: str | None = Field(default=None, max_length=40)
    """RFC 3339 UTC, see :func:`registry.clock.stamp`. A rotated key keeps working until then."""
    label: str = Field(default="", max_length=100)
    """For people: what the key is for."""
    root: Name | None = None
    """The first key of this line of rotations; None when it replaced none."""

    @property
    def line(self) -> str:
        """The same for a key and all that replace it: one person, however often the key is rotated."""
        return self.root or self.id


class Base(Document):
    """A base model pinned by name, revision and the digests of everything that decides its behaviour."""

    name: str = Field(min_length=1, max_length=200)
    revision: str = Field(min_length=1, max_length=200)
    config: Digest
    weights: Digest
    """Of the single safetensors file, or of the canonical JSON {file: digest} of all shards."""
    tokenizer: Digest
    chat_template: Digest
    modules: dict[str, tuple[int, int]]
    """Every linear layer a LoRA may target: dotted name -> (out features, in features)."""


class Sampling(Document):
    """Bounds the policy puts on a request; a request may ask for less, never for more."""

    max_tokens: int = Field(default=256, ge=1, le=131072)
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Used when the request names none."""
    max_temperature: float = Field(default=2.0, ge=0, le=2)


class Policy(Document):
    """What every answer on a route must satisfy. Identified by digest; ``name`` is for people."""

    tenant: Name
    name: Name
    json_schema: str | None = None
    """Every answer must be JSON that satisfies this; enforced while decoding, validated after it.

    Kept as JSON *text*: canonical JSON sorts keys, but a constrained decoder writes properties in the order
    of the schema, and a model that learned another order answers badly. Read it with :meth:`answer_schema`.
    """
    system_prompt: str | None = Field(default=None, max_length=32768)
    sampling: Sampling = Sampling()

    def answer_schema(self) -> dict[str, Any] | None:
        """The parsed schema, properties in the author's order; raises InvalidDocument if it is no object."""
        if self.json_schema is None:
            return None
        schema = decode(self.json_schema)
        if not isinstance(schema, dict):
            raise InvalidDocument("the answer schema must be a JSON object")
        return schema


class Route(Document):
    """One rule of g(z): tenant metadata (headers) -> adapter and policy."""

    tenant: Name
    name: Name
    model: Name
    """The public model name that a client sends; it needs not be the adapter's name."""
    when: dict[str, str] = Field(default_factory=dict)
    """Header name (lower case, starting ``x-``) -> exact value; all must match. Empty: the default route."""
    adapter: Name
    alias: Name = LIVE
    policy: Digest


class DeclaredHeader(Document):
    """A metadata header that a tenant's requests may carry, and the values that mean something."""

    name: str = Field(max_length=64)
    """Lower case, starting ``x-``."""
    values: tuple[str, ...]
    """All of them, sorted: what is not among them is refused, which is what makes a proof exhaustive."""
    required: bool = False


class Routing(Document):
    """All rules of a tenant, published as one document and numbered."""

    tenant: Name
    revision: int = Field(ge=0)
    """0: nothing was published yet."""
    headers: tuple[DeclaredHeader, ...] = ()
    routes: tuple[Route, ...] = ()


class Canary(Document):
    """A share of an alias's traffic that goes to another version."""

    version: Digest
    percent: float = Field(gt=0, lt=100, multiple_of=0.01)
    from_top: bool = False
    """Counts its buckets from the upper end: see :mod:`registry.assignment`."""

    @property
    def buckets(self) -> int:
        return round(self.percent * 100)


class AliasState(Document):
    """Where an alias points now. ``epoch`` counts its moves; a move names the epoch it saw.

    Who gets a canary is decided by :func:`registry.assignment.assigned`, never by chance per request.
    """

    tenant: Name
    adapter: Name
    alias: Name
    version: Digest
    """The stable version: it serves everybody whom no canary serves."""
    epoch: int = Field(ge=1)
    canaries: tuple[Canary, ...] = Field(default=(), max_length=2)
    """Together below 100 percent. At most two, one from each end of the buckets: with three, changing the
    share of one would have to move people between the others."""
    shadows: tuple[Digest, ...] = ()
    """Versions that get copies of requests and never answer anybody."""
    expires_at: str | None = Field(default=None, max_length=40)
    """RFC 3339 UTC; from then on the alias points nowhere."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        versions = [self.version, *(canary.version for canary in self.canaries), *self.shadows]
        if len(set(versions)) != len(versions):
            raise ValueError("a version is stable, a canary or a shadow, and only one of them")
        if sum(canary.buckets for canary in self.canaries) >= 10_000:
            raise ValueError("canaries leave nothing to the stable version")
        if len({canary.from_top for canary in self.canaries}) != len(self.canaries):
            raise ValueError("two canaries count from different ends")
        return self


class VersionState(Document):
    """What the data plane and the engines need to know of a published version."""

    version: Digest
    tenant: Name
    adapter: Name
    base: Digest
    rank: int = Field(ge=1)
    revoked: bool = False


class EngineState(Document):
    """One engine as its agent last announced it. ``boot`` changes with every start of the vLLM process."""

    engine: Name
    boot: str = Field(min_length=8, max_length=64)
    url: str
    base: Digest
    engine_version: str
    dtype: Literal["float32", "bfloat16", "float16"]
    max_loras: int = Field(ge=1)
    up: bool = True


class Slot(Document):
    """An attested residency: this boot of this engine was seen to behave as this version."""

    engine: Name
    boot: str
    version: Digest
    attestation: Digest
    """Of the signed attestation in the log."""


class PublicKey(Document):
    """A signer the registry trusts, and for what."""

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    role: Literal["log", "trainer", "release", "engine", "router"]
    ed25519: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Raw public key, hex."""


class RecordHead(Document):
    """How far a writer of request records has come: the digest of record ``seq`` vouches for all before it.

    Signed by a router's key and kept in the log, so that no record can vanish afterwards.
    """

    kind: Literal["tenon.record-head/v1"] = "tenon.record-head/v1"
    writer: str = Field(min_length=1, max_length=200)
    seq: int = Field(ge=0)
    digest: Digest
    at: str = Field(max_length=40)
