"""PostgreSQL: row-level security for everything of a tenant, and one order of letters whatever the server's.

The setting ``tenon.scope`` says whose rows a transaction may see: ``*`` all, a tenant's id its own, unset or empty
none. FORCE binds the tables' owner too; only superusers and BYPASSRLS roles pass, and Tenon refuses to work as one.
SQLite has neither and needs no change.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SCOPE = "current_setting('tenon.scope', true)"
_OWNER = {
    "aliases": "tenant",
    "entries": "tenant",
    "keys": "tenant",
    "policies": "tenant",
    "proposals": "tenant",
    "protections": "tenant",
    "routes": "tenant",
    "routings": "tenant",
    "signatures": "tenant",
    "tenants": "id",
    "usage": "tenant",
    "versions": "tenant",
}
"""Table -> the column that says whose row it is. NULL (entries, keys) is the platform's: nobody's own."""
_NAMES = {
    "aliases": ("versions", "digest", "version"),
    "reports": ("versions", "digest", "version"),
    "routes": ("policies", "digest", "policy"),
    "signatures": ("versions", "digest", "version"),
    "slots": ("versions", "digest", "version"),
    "usage": ("versions", "digest", "version"),
}
"""Table -> (table, its key, column that names it): a row must not point at what its scope cannot see. A foreign key
does not say so: it looks past row-level security."""
_PLATFORM = ("answers", "usage_writers")
"""Written for callers and routers, by the platform alone."""


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    _collate('COLLATE "C"')
    for table in sorted({*_OWNER, *_NAMES, *_PLATFORM}):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        visible, allowed = _conditions(table)
        op.execute(f"CREATE POLICY tenant_wall ON {table} USING ({visible}) WITH CHECK ({allowed})")


def downgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in sorted({*_OWNER, *_NAMES, *_PLATFORM}):
        op.execute(f"DROP POLICY tenant_wall ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    _collate('COLLATE "default"')


def _conditions(table: str) -> tuple[str, str]:
    """(whose rows are there, which rows may be written)"""
    all_of_it = f"{_SCOPE} = '*'"
    own = [f"{table}.{_OWNER[table]} = {_SCOPE}"] if table in _OWNER else []
    named = []
    if table in _NAMES:
        other, key, column = _NAMES[table]
        named = [f"EXISTS (SELECT FROM {other} WHERE {other}.{key} = {table}.{column})"]
    # Where there is a column, reading asks no second table.
    visible, allowed = own or named, own + named
    return (
        " OR ".join([all_of_it, *visible]),
        " OR ".join([all_of_it, *([f"({' AND '.join(allowed)})"] if allowed else [])]),
    )


def _collate(collation: str) -> None:
    """Pages are cut by order, and the order must be that of bytes, as in SQLite: "-" and "_" count."""
    columns = op.get_bind().execute(
        sa.text(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND data_type = 'character varying'"
            " AND table_name <> 'alembic_version' ORDER BY table_name, column_name"
        )
    )
    for table, column in columns.all():
        op.execute(f'ALTER TABLE {table} ALTER COLUMN "{column}" TYPE varchar {collation}')
