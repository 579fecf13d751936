"""Fingerprints that came after the version that they are of."""

import sqlalchemy as sa
from alembic import op

from registry.store.errors import StoreConflict

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("versions", sa.Column("fingerprint", _TEXT, nullable=True))


def downgrade() -> None:
    referenced = "SELECT 1 FROM versions WHERE fingerprint IS NOT NULL LIMIT 1"
    if op.get_bind().execute(sa.text(referenced)).first():
        raise StoreConflict("references were filed since: the Tenon of before cannot read them")
    op.drop_column("versions", "fingerprint")
