"""The control plane: proposals and protections, canaries, rotated keys, routings, signatures, usage, answers.

What new columns say about old rows is worked out from the entries, here and not with today's projection: this
script must go on meaning what it means now.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BATCH = 1000
_FOLLOWED = ("tenants", "keys", "policies", "routings", "versions", "aliases")
"""What the feed asks for changes since an entry."""


def upgrade() -> None:
    _widen()
    _create()
    for table in _FOLLOWED:
        op.create_index(f"ix_{table}_entry", table, ["entry"])
    connection = op.get_bind()
    if connection.execute(sa.text("SELECT 1 FROM entries LIMIT 1")).first() is not None:
        _fill(connection)


def downgrade() -> None:
    for table in _FOLLOWED:
        op.drop_index(f"ix_{table}_entry", table)
    for table in ("answers", "usage_writers", "usage", "proposals", "protections", "signatures", "routings"):
        op.drop_table(table)
    for column in ("expires_at", "shadows", "canaries"):
        op.drop_column("aliases", column)
    op.drop_column("signers", "distrusted")
    op.execute("DELETE FROM keys WHERE tenant IS NULL")  # 0001 has no keys of the platform
    op.drop_index("ix_keys_tenant", "keys")
    with op.batch_alter_table("keys") as keys:
        keys.alter_column("tenant", existing_type=sa.String(), nullable=False)
        for column in ("issuer", "root", "label", "expires_at"):
            keys.drop_column(column)
    op.create_index("ix_keys_tenant", "keys", ["tenant"])
    for column in ("quota", "suspended"):
        op.drop_column("tenants", column)
    op.drop_index("ix_versions_name", "versions")
    op.create_index("ix_versions_name", "versions", ["tenant", "adapter"])
    op.drop_index("ix_entries_tenant", "entries")
    op.drop_column("entries", "tenant")
    op.drop_index("ix_entries_kind", "entries")
    op.create_index("ix_entries_kind", "entries", ["kind", "subject"])


def _widen() -> None:
    op.add_column("entries", sa.Column("tenant", sa.String(), nullable=True))
    op.create_index("ix_entries_tenant", "entries", ["tenant", "position"])
    op.drop_index("ix_entries_kind", "entries")
    op.create_index("ix_entries_kind", "entries", ["kind", "subject", "position"])
    no = sa.false()
    op.add_column("tenants", sa.Column("suspended", sa.Boolean(), nullable=False, server_default=no))
    op.add_column("tenants", sa.Column("quota", sa.String(), nullable=False, server_default=_NO_QUOTA))
    op.drop_index("ix_keys_tenant", "keys")
    with op.batch_alter_table("keys") as keys:  # nothing refers to keys, so SQLite may make the table anew
        keys.alter_column("tenant", existing_type=sa.String(), nullable=True)
        keys.add_column(sa.Column("expires_at", sa.String(), nullable=True))
        keys.add_column(sa.Column("label", sa.String(), nullable=False, server_default=""))
        keys.add_column(sa.Column("root", sa.String(), nullable=True))
        keys.add_column(sa.Column("issuer", sa.String(), nullable=False, server_default=""))
    op.create_index("ix_keys_tenant", "keys", ["tenant", "id"])
    op.add_column("signers", sa.Column("distrusted", sa.Boolean(), nullable=False, server_default=no))
    op.drop_index("ix_versions_name", "versions")
    op.create_index("ix_versions_name", "versions", ["tenant", "adapter", "pushed"])
    for column in ("canaries", "shadows"):
        op.add_column("aliases", sa.Column(column, sa.String(), nullable=False, server_default="[]"))
    op.add_column("aliases", sa.Column("expires_at", sa.String(), nullable=True))


def _create() -> None:
    op.create_table(
        "routings",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("document", sa.String(), nullable=False),
        sa.Column("entry", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"]),
        sa.PrimaryKeyConstraint("tenant"),
    )
    op.create_table(
        "signatures",
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("signer", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("envelope", sa.String(), nullable=False),
        sa.Column("entry", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["version"], ["versions.digest"]),
        sa.ForeignKeyConstraint(["signer"], ["signers.id"]),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"]),
        sa.PrimaryKeyConstraint("version", "signer"),
    )
    op.create_index("ix_signatures_tenant", "signatures", ["tenant"])
    op.create_table(
        "protections",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("approvals", sa.Integer(), nullable=False),
        sa.Column("release_signature", sa.Boolean(), nullable=False),
        sa.Column("entry", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"]),
        sa.PrimaryKeyConstraint("tenant", "alias"),
    )
    op.create_table(
        "proposals",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("opened", sa.Integer(), nullable=False),
        sa.Column("document", sa.String(), nullable=False),
        sa.Column("entry", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_proposals_tenant", "proposals", ["tenant", "opened"])
    op.create_index("ix_proposals_alias", "proposals", ["tenant", "adapter", "alias", "state"])
    op.create_table(
        "usage",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("day", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"]),
        sa.ForeignKeyConstraint(["version"], ["versions.digest"]),
        sa.PrimaryKeyConstraint("tenant", "day", "version"),
    )
    op.create_table(
        "usage_writers",
        sa.Column("writer", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("writer"),
    )
    op.create_table(
        "answers",
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", sa.String(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("actor", "key"),
    )
    op.create_index("ix_answers_at", "answers", ["at"])


def _fill(connection: sa.Connection) -> None:
    owners: list[dict[str, Any]] = []
    issuers: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    routings: dict[str, tuple[int, int, Any]] = {}
    rows = connection.execute(
        sa.text("SELECT position, actor, kind, subject, body FROM entries ORDER BY position")
    )
    for position, actor, kind, subject, text in rows:
        body = json.loads(text)
        tenant = _owner(kind, subject, body, versions)
        if tenant is not None:
            owners.append({"tenant": tenant, "at": position})
        if kind == "version.pushed" and tenant is not None:
            versions[subject] = tenant
        elif kind == "key.issued":
            issuers.append({"issuer": actor, "key": subject})
        elif kind == "routes.replaced":
            revisions = routings[subject][0] if subject in routings else 0
            routings[subject] = (revisions + 1, position, body["routes"])
    with _unguarded(connection):
        _each(connection, "UPDATE entries SET tenant = :tenant WHERE position = :at", owners)
    _each(connection, "UPDATE keys SET issuer = :issuer WHERE id = :key", issuers)
    _each(
        connection,
        "INSERT INTO routings (tenant, revision, document, entry) VALUES (:tenant, :revision, :document, :entry)",
        [
            {
                "tenant": tenant,
                "revision": revision,
                "document": _routing(tenant, revision, routes),
                "entry": entry,
            }
            for tenant, (revision, entry, routes) in routings.items()
        ],
    )


def _owner(kind: str, subject: str, body: Mapping[str, Any], versions: Mapping[str, str]) -> str | None:
    match kind:
        case "tenant.created" | "routes.replaced":
            return subject
        case "key.issued" | "key.revoked":
            return str(body["key"]["tenant"])
        case "policy.published":
            return str(body["policy"]["tenant"])
        case "version.pushed":
            return str(body["manifest"]["tenant"])
        case "version.revoked":
            return versions[subject]
        case "report.filed":
            return versions[body["version"]]
        case "alias.moved":
            return str(body["alias"]["tenant"])
        case _:
            return None


def _routing(tenant: str, revision: int, routes: list[Mapping[str, Any]]) -> str:
    declared: dict[str, set[str]] = {}
    for route in routes:
        for header, value in route["when"].items():
            declared.setdefault(header, set()).add(value)
    headers = [
        {"name": name, "required": False, "values": sorted(declared[name])} for name in sorted(declared)
    ]
    document = {"headers": headers, "revision": revision, "routes": routes, "tenant": tenant}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _each(connection: sa.Connection, statement: str, rows: Iterable[dict[str, Any]]) -> None:
    batch = list(rows)
    for start in range(0, len(batch), _BATCH):
        connection.execute(sa.text(statement), batch[start : start + _BATCH])


class _unguarded:  # noqa: N801 (read as a statement: with _unguarded(connection))
    """The entries are append-only by trigger; ``tenant`` is a derived column and no part of any leaf."""

    _TRIGGER = "entries_no_update"

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._definition = ""

    def __enter__(self) -> None:
        if self._connection.dialect.name == "sqlite":
            found = sa.text("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = :name")
            self._definition = self._connection.execute(found, {"name": self._TRIGGER}).scalar_one()
            self._connection.exec_driver_sql(f"DROP TRIGGER {self._TRIGGER}")
        else:
            self._connection.exec_driver_sql("ALTER TABLE entries DISABLE TRIGGER USER")

    def __exit__(self, *_: object) -> None:
        if self._connection.dialect.name == "sqlite":
            self._connection.exec_driver_sql(self._definition)
        else:
            self._connection.exec_driver_sql("ALTER TABLE entries ENABLE TRIGGER USER")


_NO_QUOTA = (
    '{"concurrent_requests":null,"requests_per_minute":null,"tokens_per_day":null,"tokens_per_minute":null}'
)
