"""Request records that routers ship into the registry's database."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "records",
        sa.Column("writer", _TEXT, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("digest", _TEXT, nullable=False),
        sa.Column("tenant", _TEXT, nullable=True),
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("event", _TEXT, nullable=False),
        sa.Column("at", _TEXT, nullable=False),
        sa.Column("line", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("writer", "seq"),
    )
    op.create_index("ix_records_tenant", "records", ["tenant", "at"])
    op.create_index("ix_records_id", "records", ["id"])
    if op.get_bind().dialect.name == "postgresql":
        # NULL is of a request whose tenant nobody knows: the platform's.
        scope = "current_setting('tenon.scope', true)"
        own = f"{scope} = '*' OR records.tenant = {scope}"
        op.execute("ALTER TABLE records ENABLE ROW LEVEL SECURITY")
        op.execute("ALTER TABLE records FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant_wall ON records USING ({own}) WITH CHECK ({own})")


def downgrade() -> None:
    op.drop_table("records")  # routers keep their own; shipping begins again from the first
