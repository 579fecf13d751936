"""The nouns of the catalog, as frozen documents. Words: docs/concepts/words.md."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from registry.canonical import Document, decode, later
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
    weight: int | None = Field(default=None, ge=1, le=1000, exclude_if=lambda weight: weight is None)
    """Share of a busy engine, beside tenants of weight 1 (None). Left out of the canonical bytes without one,
    so that quotas of before keep theirs."""


class Level(StrEnum):
    """How much of an engine a tenant has to itself, from least to most."""

    SHARED = "shared"
    """Its versions share engines, and their device slots, with other tenants'."""
    PINNED = "pinned"
    """On shared engines, but a device slot is kept free for each of its versions."""
    DEDICATED = "dedicated"
    """Engines that hold nobody else's adapters."""
    MERGED = "merged"
    """Engines whose weights are the base with the version merged in: no adapter is applied at all."""


class Isolation(Document):
    """Where a tenant's versions live. Its API stays the same on every level, and while it moves."""

    level: Level = Level.SHARED
    engines: tuple[Name, ...] = Field(default=(), max_length=64)
    """Those given to the tenant: they serve nobody else. Empty below ``dedicated``, and where a tenant itself
    looks: it is told its level only."""
    replicas: int = Field(default=2, ge=1, le=64)
    """On how many engines each version is wanted; fewer when there are fewer."""
    unclean: tuple[str, ...] = later((), max_length=64)
    """Boots of these engines that held others' adapters when they were given: each ends before its engine is
    the tenant's home. Said by the registry alone."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.engines and self.level not in (Level.DEDICATED, Level.MERGED):
            raise ValueError("a tenant has engines of its own when it is dedicated or merged, and only then")
        if len(set(self.engines)) != len(self.engines):
            raise ValueError("an engine is named twice")
        if self.unclean and not self.engines:
            raise ValueError("boots are unclean of engines that were given")
        return self


class Tenant(Document):
    id: Name
    display_name: str = Field(min_length=1, max_length=200)
    suspended: bool = False
    """Nothing of the tenant is served and none of its keys opens anything; nothing is deleted."""
    quota: Quota = Quota()
    isolation: Isolation = later(Isolation())


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
    quota: Quota | None = Field(default=None, exclude_if=lambda quota: quota is None)
    """What this key may use, within what its tenant may; shared by a key and all that replace it. Its weight
    means nothing. Left out of the canonical bytes without one."""

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
    """Bounds the policy puts on a request: one that asks for more is refused, never clamped."""

    max_tokens: int = Field(default=256, ge=1, le=131072)
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Used when the request names none."""
    max_temperature: float = Field(default=2.0, ge=0, le=2)
    min_temperature: float = later(0.0, ge=0, le=2)
    top_p: float | None = later(None, gt=0, le=1)
    """Used when the request names none; None leaves it to the engine."""
    min_top_p: float = later(0.0, ge=0, le=1)
    max_top_p: float = later(1.0, gt=0, le=1)
    max_penalty: float = later(2.0, ge=0, le=2)
    """Of presence_penalty and frequency_penalty, in either direction."""
    max_choices: int = later(128, ge=1, le=128)
    """Answers to one question (OpenAI's ``n``)."""
    logprobs: bool = later(default=True)
    """Whether a request may ask for them: with enough of them a model can be copied."""
    max_top_logprobs: int = later(20, ge=0, le=20)


class Turn(Document):
    """A message of an example conversation."""

    role: Literal["user", "assistant"]
    content: str = Field(min_length=1, max_length=32768)


class OnInvalid(StrEnum):
    """What becomes of an answer that does not satisfy the policy."""

    ERROR = "error"
    RETRY = "retry"
    """The engine is asked once more, if nothing of the answer was sent; then an error."""


class ClientSchema(StrEnum):
    """What becomes of a schema that a client sends."""

    REFUSE = "refuse"
    """Only the policy's own is accepted."""
    NARROW = "narrow"
    """It is applied if it can be seen to accept nothing that the policy does not."""


class Retention(StrEnum):
    """What is kept of a question and its answer, beside the facts in the record."""

    NONE = "none"
    DIGESTS = "digests"
    """SHA-256 of both: whoever has the text can prove it is the one, or guess a short one."""
    HMAC = "hmac"
    """Keyed digests of both: only who holds the tenant's key can tell."""
    FULL = "full"
    """Keyed digests, and both texts encrypted with the tenant's key."""


ANY_TOOL = "*"
ToolName = Annotated[str, StringConstraints(pattern=r"^([a-zA-Z0-9_-]{1,64}|\*)$")]


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
    prompt: tuple[Turn, ...] = later((), max_length=64)
    """Examples, put between the system prompt and the client's messages."""
    tools: tuple[ToolName, ...] = later((), max_length=128)
    """Names of functions that a client may offer to the model. Empty: none; ``("*",)``: any."""
    on_invalid: OnInvalid = later(OnInvalid.ERROR)
    client_schema: ClientSchema = later(ClientSchema.REFUSE)
    retention: Retention = later(Retention.DIGESTS)
    intent_durable: bool = later(default=False)
    """Whether a line that says who is about to be asked what is on disk before the engine is asked."""

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


class Former(Document):
    """What an alias showed everybody before: it stays loaded, for the way back and for conversations that
    began with it."""

    version: Digest
    epoch: int = Field(ge=1)
    """The last one of the alias in which it was the stable version."""
    since: int | None = later(None, ge=1)
    """The first one of those, without another version in between; None where nobody wrote it down."""
    until: str | None = later(None, max_length=40)
    """RFC 3339 UTC: who began with it is answered by it until then. Engines keep it longer."""


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
    former: Former | None = later(None)
    """What engines keep for a roll back; None when there is none. What was rolled back from never is: it
    answers nobody any more. After a roll back, no conversation goes on with it (``until``)."""

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
    fingerprint: Digest | None = later(None)
    """The blob with the fingerprint of a version whose manifest has none, once a trainer signed one."""


class EngineState(Document):
    """One engine as its agent last announced it. ``boot`` changes with every start of the vLLM process."""

    engine: Name
    boot: str = Field(min_length=8, max_length=64)
    url: str
    base: Digest
    engine_version: str
    dtype: Literal["float32", "bfloat16", "float16"]
    max_loras: int = Field(ge=1)
    """Device slots: how many adapters it works on at a time."""
    up: bool = True
    names: int | None = later(None, ge=1)
    """How many versions it holds ready at a time; None: as many as device slots."""
    max_rank: int | None = later(None, ge=1)
    """The largest LoRA rank that it takes; None: not told."""
    slot_rank: int | None = later(None, ge=1)
    """The largest that fits into the slots of this boot: it starts afresh before it takes a larger one. None:
    all that it takes."""
    merged: Digest | None = later(None)
    """The version whose weights are part of this engine's: it answers as that one and as nothing else."""
    guarded: bool = later(default=False)
    """Whether the guard inside vLLM watches every step (docs/concepts/guard.md)."""
    key: str | None = later(None, pattern=r"^[0-9a-f]{16}$")
    """The engine key that signed this announcement: nobody else speaks for the boot. None: unsigned."""


class Slot(Document):
    """An attested residency: this boot of this engine was seen to behave as this version."""

    engine: Name
    boot: str
    version: Digest
    attestation: Digest
    """Of the signed attestation in the log."""


class Withdrawal(Document):
    """What a boot of an engine stops serving, because others do."""

    engine: Name
    boot: str = Field(min_length=8, max_length=64)
    versions: tuple[Digest, ...] = Field(min_length=1, max_length=4096)


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
    """Of the last record that the head covers."""
    digest: Digest
    at: str = Field(max_length=40)
    first: int | None = later(None, ge=0)
    root: Digest | None = later(None)
    """Merkle root (RFC 6962) over the digests of the records ``first`` to ``seq``: a record's place under the
    head can be proved without showing any other record. Older heads have none, and the bytes without."""
    after: Digest | None = later(None)
    """Of the record before ``first``, or the writer's genesis: what makes this head one chain with the head
    before it. Older heads have none."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.first is None) != (self.root is None) or (self.first or 0) > self.seq:
            raise ValueError("a root covers the records from first to seq")
        if self.after is not None and self.first is None:
            raise ValueError("what comes after a record needs a first one")
        return self
