"""Promotions in two phases: what is being prepared, and what an alias showed before."""

import sqlalchemy as sa
from alembic import op

from registry.store.errors import StoreConflict

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("aliases", sa.Column("former", _TEXT, nullable=True))
    op.create_table(
        "preparations",
        sa.Column("tenant", _TEXT, nullable=False),
        sa.Column("adapter", _TEXT, nullable=False),
        sa.Column("alias", _TEXT, nullable=False),
        sa.Column("version", _TEXT, nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("until", _TEXT, nullable=False),
        sa.Column("entry", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"]),
        sa.ForeignKeyConstraint(["version"], ["versions.digest"]),
        sa.PrimaryKeyConstraint("tenant", "adapter", "alias"),
    )
    op.create_index("ix_preparations_entry", "preparations", ["entry"])
    if op.get_bind().dialect.name == "postgresql":
        scope = "current_setting('tenon.scope', true)"
        visible = f"{scope} = '*' OR preparations.tenant = {scope}"
        # A row must not name what its scope cannot see: a foreign key looks past row-level security.
        seen = "EXISTS (SELECT FROM versions WHERE versions.digest = preparations.version)"
        allowed = f"{scope} = '*' OR (preparations.tenant = {scope} AND {seen})"
        op.execute("ALTER TABLE preparations ENABLE ROW LEVEL SECURITY")
        op.execute("ALTER TABLE preparations FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant_wall ON preparations USING ({visible}) WITH CHECK ({allowed})")


def downgrade() -> None:
    connection = op.get_bind()
    prepared = "SELECT 1 FROM preparations LIMIT 1"
    former = "SELECT 1 FROM aliases WHERE former IS NOT NULL LIMIT 1"
    if connection.execute(sa.text(prepared)).first() or connection.execute(sa.text(former)).first():
        raise StoreConflict("promotions were made in two phases since: the Tenon of before cannot read them")
    op.drop_table("preparations")
    op.drop_column("aliases", "former")
