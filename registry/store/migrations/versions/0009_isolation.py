"""Where a tenant's versions live; without a value as before, on shared engines."""

import sqlalchemy as sa
from alembic import op

from registry.store.errors import StoreConflict

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("tenants", sa.Column("isolation", _TEXT, nullable=True))


def downgrade() -> None:
    isolated = "SELECT 1 FROM tenants WHERE isolation IS NOT NULL LIMIT 1"
    if op.get_bind().execute(sa.text(isolated)).first():
        raise StoreConflict("tenants were isolated since: the Tenon of before would serve them anywhere")
    op.drop_column("tenants", "isolation")
