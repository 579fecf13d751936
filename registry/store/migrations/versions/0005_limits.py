"""Limits of keys, and what routers let through in the windows of all limits."""

import sqlalchemy as sa
from alembic import op

from registry.store.errors import StoreConflict

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("keys", sa.Column("quota", _TEXT, nullable=True))
    op.create_table(
        "counts",
        sa.Column("subject", _TEXT, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("writer", _TEXT, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "kind", "slot", "writer"),
    )
    op.create_index("ix_counts_until", "counts", ["until"])
    if op.get_bind().dialect.name == "postgresql":
        # Of the platform, as usage_writers: no tenant reads it, its own counts neither.
        own = "current_setting('tenon.scope', true) = '*'"
        op.execute("ALTER TABLE counts ENABLE ROW LEVEL SECURITY")
        op.execute("ALTER TABLE counts FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant_wall ON counts USING ({own}) WITH CHECK ({own})")


def downgrade() -> None:
    if op.get_bind().execute(sa.text("SELECT 1 FROM keys WHERE quota IS NOT NULL LIMIT 1")).first():
        raise StoreConflict("keys have limits since: the Tenon of before would not keep to them")
    op.drop_table("counts")
    op.drop_column("keys", "quota")
