"""Tables, private to the store: built only from validated documents, never shown to anybody.

``entries``, ``heads`` and ``nodes`` only grow (triggers refuse anything else). Every other table is a
projection of the entries: its ``entry`` column names the last entry that changed the row, and ``verify``
compares it with a replay. Tables that the feed carries have an index on it, for what changed since an entry.
"""

from sqlalchemy import BigInteger, Index, Integer
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class Row(SQLModel, registry=registry()):
    """Own metadata, so that SQLModel classes of an embedding application cannot mix with ours."""


class EntryRow(Row, table=True):
    __tablename__ = "entries"
    __table_args__ = (
        Index("ix_entries_kind", "kind", "subject", "position"),
        Index("ix_entries_tenant", "tenant", "position"),
    )
    position: int = Field(primary_key=True, sa_type=Integer)
    at: str
    actor: str
    kind: str
    subject: str
    body: str
    """Canonical JSON."""
    leaf: str
    """Merkle leaf hash, hex."""
    tenant: str | None
    """Whose entry it is, None: the platform's. Derived from the entry and no part of the leaf."""
    salt: str = ""
    """Hex; empty in entries of before they were salted."""


class HeadRow(Row, table=True):
    __tablename__ = "heads"
    size: int = Field(primary_key=True, sa_type=Integer)
    envelope: str


class FrontierRow(Row, table=True):
    """One row: what appending needs, so that it never reads old entries."""

    __tablename__ = "frontier"
    only: int = Field(default=1, primary_key=True)
    size: int
    peaks: str
    """Hex, 64 characters a peak."""


class NodeRow(Row, table=True):
    """The log's Merkle tree at heights 0, 8, 16 …, see ``registry.log.tiles``. Only grows."""

    __tablename__ = "nodes"
    height: int = Field(primary_key=True, sa_type=Integer)
    position: int = Field(primary_key=True, sa_type=Integer)
    hash: bytes


class TipRow(Row, table=True):
    """How many entries a tenant has and the chain over them, see ``registry.log.tips``."""

    __tablename__ = "tips"
    position: int = Field(primary_key=True, sa_type=Integer, sa_column_kwargs={"autoincrement": False})
    tenant: str = Field(unique=True)
    entries: int
    chain: str


class TipNodeRow(Row, table=True):
    """The Merkle tree over the tips, at all heights; a path of it changes with every entry of a tenant."""

    __tablename__ = "tip_nodes"
    height: int = Field(primary_key=True, sa_type=Integer)
    position: int = Field(primary_key=True, sa_type=Integer)
    hash: bytes


class TenantRow(Row, table=True):
    __tablename__ = "tenants"
    id: str = Field(primary_key=True)
    display_name: str
    suspended: bool
    quota: str
    isolation: str | None = None
    """None: on shared engines, like everybody at first."""
    entry: int = Field(index=True)


class KeyRow(Row, table=True):
    __tablename__ = "keys"
    __table_args__ = (Index("ix_keys_tenant", "tenant", "id"),)
    id: str = Field(primary_key=True)
    tenant: str | None = Field(foreign_key="tenants.id")
    role: str
    secret_hash: str = Field(unique=True)
    revoked: bool
    expires_at: str | None
    label: str
    root: str | None
    quota: str | None
    issuer: str
    """The actor who was shown the secret."""
    entry: int = Field(index=True)


class SignerRow(Row, table=True):
    __tablename__ = "signers"
    id: str = Field(primary_key=True)
    role: str
    ed25519: str
    distrusted: bool
    """The row stays: the same key must not come back under another role."""
    entry: int


class BaseRow(Row, table=True):
    __tablename__ = "bases"
    digest: str = Field(primary_key=True)
    name: str = Field(index=True)
    document: str
    contract: str
    entry: int


class PolicyRow(Row, table=True):
    __tablename__ = "policies"
    digest: str = Field(primary_key=True)
    tenant: str = Field(foreign_key="tenants.id", index=True)
    document: str
    entry: int = Field(index=True)


class RouteRow(Row, table=True):
    __tablename__ = "routes"
    tenant: str = Field(primary_key=True, foreign_key="tenants.id")
    name: str = Field(primary_key=True)
    position: int
    """In the list that the tenant gave."""
    policy: str = Field(foreign_key="policies.digest")
    document: str
    entry: int


class RoutingRow(Row, table=True):
    """The same routes as in ``routes``, as the numbered document that was published."""

    __tablename__ = "routings"
    tenant: str = Field(primary_key=True, foreign_key="tenants.id")
    revision: int
    document: str
    entry: int = Field(index=True)


class VersionRow(Row, table=True):
    __tablename__ = "versions"
    __table_args__ = (Index("ix_versions_name", "tenant", "adapter", "pushed"),)
    digest: str = Field(primary_key=True)
    tenant: str = Field(foreign_key="tenants.id")
    adapter: str
    base: str = Field(foreign_key="bases.digest")
    rank: int
    manifest: str
    pushed: int
    """Index of the entry that pushed it: the order of versions."""
    pushed_at: str
    revoked: bool
    fingerprint: str | None = None
    """Filed after the push; one that came with it stands in the manifest."""
    entry: int = Field(index=True)


class ReportRow(Row, table=True):
    __tablename__ = "reports"
    digest: str = Field(primary_key=True)
    version: str = Field(foreign_key="versions.digest", index=True)
    document: str
    entry: int


class SignatureRow(Row, table=True):
    __tablename__ = "signatures"
    version: str = Field(primary_key=True, foreign_key="versions.digest")
    signer: str = Field(primary_key=True, foreign_key="signers.id")
    tenant: str = Field(foreign_key="tenants.id", index=True)
    envelope: str
    entry: int


class AliasRow(Row, table=True):
    __tablename__ = "aliases"
    tenant: str = Field(primary_key=True, foreign_key="tenants.id")
    adapter: str = Field(primary_key=True)
    alias: str = Field(primary_key=True)
    version: str = Field(foreign_key="versions.digest", index=True)
    epoch: int
    canaries: str
    """JSON list, as are the shadows."""
    shadows: str
    expires_at: str | None
    former: str | None
    """JSON."""
    entry: int = Field(index=True)


class PreparationRow(Row, table=True):
    """The newest of each alias, also once it is over."""

    __tablename__ = "preparations"
    tenant: str = Field(primary_key=True, foreign_key="tenants.id")
    adapter: str = Field(primary_key=True)
    alias: str = Field(primary_key=True)
    version: str = Field(foreign_key="versions.digest")
    epoch: int
    until: str
    entry: int = Field(index=True)


class ProtectionRow(Row, table=True):
    __tablename__ = "protections"
    tenant: str = Field(primary_key=True, foreign_key="tenants.id")
    alias: str = Field(primary_key=True)
    approvals: int
    release_signature: bool
    entry: int


class ProposalRow(Row, table=True):
    __tablename__ = "proposals"
    __table_args__ = (
        Index("ix_proposals_tenant", "tenant", "opened"),
        Index("ix_proposals_alias", "tenant", "adapter", "alias", "state"),
    )
    id: str = Field(primary_key=True)
    tenant: str = Field(foreign_key="tenants.id")
    adapter: str
    alias: str
    state: str
    opened: int
    """Index of the entry that proposed it: the order of proposals."""
    document: str
    entry: int


class EngineRow(Row, table=True):
    __tablename__ = "engines"
    engine: str = Field(primary_key=True)
    boot: str
    base: str = Field(foreign_key="bases.digest")
    document: str
    entry: int


class SlotRow(Row, table=True):
    __tablename__ = "slots"
    engine: str = Field(primary_key=True, foreign_key="engines.engine")
    version: str = Field(primary_key=True, foreign_key="versions.digest")
    boot: str
    attestation: str
    entry: int


class RecordHeadRow(Row, table=True):
    __tablename__ = "record_heads"
    writer: str = Field(primary_key=True)
    seq: int
    digest: str
    at: str
    entry: int


class UsageRow(Row, table=True):
    """Sums, not lines: its size is versions times days, whatever the traffic."""

    __tablename__ = "usage"
    tenant: str = Field(primary_key=True, foreign_key="tenants.id")
    day: str = Field(primary_key=True)
    version: str = Field(primary_key=True, foreign_key="versions.digest")
    adapter: str
    requests: int = Field(sa_type=BigInteger)
    prompt_tokens: int = Field(sa_type=BigInteger)
    completion_tokens: int = Field(sa_type=BigInteger)


class UsageWriterRow(Row, table=True):
    """How far each writer was counted."""

    __tablename__ = "usage_writers"
    writer: str = Field(primary_key=True)
    seq: int = Field(sa_type=BigInteger)
    digest: str


class CountRow(Row, table=True):
    """What each router let through in the windows of limits (``registry.counting``); rows of windows that are
    past are deleted."""

    __tablename__ = "counts"
    subject: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    slot: int = Field(primary_key=True, sa_type=BigInteger)
    writer: str = Field(primary_key=True)
    seq: int = Field(sa_type=BigInteger)
    value: int = Field(sa_type=BigInteger)
    until: int = Field(sa_type=BigInteger, index=True)
    """Seconds since 1970."""


class RecordRow(Row, table=True):
    """A line of a router's chain of request records, as it was shipped. No foreign keys: what a record says
    of its moment stays true whatever is deleted later."""

    __tablename__ = "records"
    __table_args__ = (Index("ix_records_tenant", "tenant", "at"),)
    writer: str = Field(primary_key=True)
    seq: int = Field(primary_key=True, sa_type=BigInteger)
    digest: str
    tenant: str | None
    id: str = Field(index=True)
    event: str
    at: str
    line: str
    """Exact bytes; ``line::jsonb`` has the rest of its fields."""


class AnswerRow(Row, table=True):
    """What a write with an idempotency key was answered, so that a repetition gets the same."""

    __tablename__ = "answers"
    actor: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    request: str
    """Digest of what was asked."""
    status: int | None
    """None while the first request is still being answered."""
    headers: str
    body: str
    at: str = Field(index=True)


PROJECTED: tuple[type[Row], ...] = (
    TenantRow,
    KeyRow,
    SignerRow,
    BaseRow,
    PolicyRow,
    RouteRow,
    RoutingRow,
    VersionRow,
    ReportRow,
    SignatureRow,
    AliasRow,
    PreparationRow,
    ProtectionRow,
    ProposalRow,
    EngineRow,
    SlotRow,
    RecordHeadRow,
)
"""Every table that entries decide."""
