"""Tables, private to the store: built only from validated documents, never shown to anybody.

``entries`` and ``heads`` are the truth and only grow (triggers refuse anything else). Every other table is a
projection of the entries: its ``entry`` column names the last entry that changed the row, and ``verify``
compares it with a replay.
"""

from sqlalchemy import Index, Integer
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class Row(SQLModel, registry=registry()):
    """Own metadata, so that SQLModel classes of an embedding application cannot mix with ours."""


class EntryRow(Row, table=True):
    __tablename__ = "entries"
    __table_args__ = (Index("ix_entries_kind", "kind", "subject"),)
    position: int = Field(primary_key=True, sa_type=Integer)
    at: str
    actor: str
    kind: str
    subject: str
    body: str
    """Canonical JSON."""
    leaf: str
    """Merkle leaf hash, hex."""


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


class TenantRow(Row, table=True):
    __tablename__ = "tenants"
    id: str = Field(primary_key=True)
    display_name: str
    entry: int


class KeyRow(Row, table=True):
    __tablename__ = "keys"
    id: str = Field(primary_key=True)
    tenant: str = Field(foreign_key="tenants.id", index=True)
    role: str
    secret_hash: str = Field(unique=True)
    revoked: bool
    entry: int


class SignerRow(Row, table=True):
    __tablename__ = "signers"
    id: str = Field(primary_key=True)
    role: str
    ed25519: str
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
    entry: int


class RouteRow(Row, table=True):
    __tablename__ = "routes"
    tenant: str = Field(primary_key=True, foreign_key="tenants.id")
    name: str = Field(primary_key=True)
    position: int
    """In the list that the tenant gave."""
    policy: str = Field(foreign_key="policies.digest")
    document: str
    entry: int


class VersionRow(Row, table=True):
    __tablename__ = "versions"
    __table_args__ = (Index("ix_versions_name", "tenant", "adapter"),)
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
    entry: int


class ReportRow(Row, table=True):
    __tablename__ = "reports"
    digest: str = Field(primary_key=True)
    version: str = Field(foreign_key="versions.digest", index=True)
    document: str
    entry: int


class AliasRow(Row, table=True):
    __tablename__ = "aliases"
    tenant: str = Field(primary_key=True, foreign_key="tenants.id")
    adapter: str = Field(primary_key=True)
    alias: str = Field(primary_key=True)
    version: str = Field(foreign_key="versions.digest", index=True)
    epoch: int
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


PROJECTED: tuple[type[Row], ...] = (
    TenantRow,
    KeyRow,
    SignerRow,
    BaseRow,
    PolicyRow,
    RouteRow,
    VersionRow,
    ReportRow,
    AliasRow,
    EngineRow,
    SlotRow,
    RecordHeadRow,
)
"""Every table that entries decide."""
