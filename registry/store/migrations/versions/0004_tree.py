"""What proofs need: levels of the log's Merkle tree, tips of the tenants with theirs, salted entries.

The hashes are worked out here and not with today's code: this script must go on meaning what it means now.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from alembic import op

from registry.store.errors import StoreConflict

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BATCH = 1000
_STRIDE = 8
_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    op.add_column("entries", sa.Column("salt", _TEXT, nullable=False, server_default=""))
    for table in ("nodes", "tip_nodes"):
        op.create_table(
            table,
            sa.Column("height", sa.Integer(), nullable=False),
            sa.Column("position", sa.Integer(), nullable=False),
            sa.Column("hash", sa.LargeBinary(), nullable=False),
            sa.PrimaryKeyConstraint("height", "position"),
        )
    op.create_table(
        "tips",
        sa.Column("position", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("tenant", _TEXT, nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("chain", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("position"),
        sa.UniqueConstraint("tenant"),
    )
    _fill(op.get_bind())
    if postgresql:
        op.execute("ALTER TABLE tips ENABLE ROW LEVEL SECURITY")
        op.execute("ALTER TABLE tips FORCE ROW LEVEL SECURITY")
        scope = "current_setting('tenon.scope', true)"
        own = f"{scope} = '*' OR tips.tenant = {scope}"
        op.execute(f"CREATE POLICY tenant_wall ON tips USING ({own}) WITH CHECK ({own})")
    _guard(postgresql)


def downgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    if op.get_bind().execute(sa.text("SELECT 1 FROM entries WHERE salt <> '' LIMIT 1")).first() is not None:
        raise StoreConflict("entries were salted since: without the salt nobody could check their hashes")
    for action in ("update", "delete", *(["truncate"] if postgresql else [])):
        op.execute(f"DROP TRIGGER nodes_no_{action}" + (" ON nodes" if postgresql else ""))
    for table in ("tips", "tip_nodes", "nodes"):
        op.drop_table(table)
    op.drop_column("entries", "salt")


def _fill(connection: sa.Connection) -> None:
    """From the leaf hashes as they are stored: if one was changed, ``verify`` says so, before and after."""
    nodes: list[tuple[int, int, bytes]] = []
    peaks: list[bytes] = []
    tips: dict[str, tuple[int, bytes]] = {}
    rows = connection.execute(
        sa.text("SELECT position, leaf, tenant FROM entries ORDER BY position"),
        execution_options={"yield_per": _BATCH},
    )
    for size, (_, text, tenant) in enumerate(rows):
        leaf = _leaf(text)
        carry, height, node = size, 0, leaf
        nodes.append((0, size, leaf))
        while carry & 1:
            node = hashlib.sha256(b"\x01" + peaks.pop() + node).digest()
            carry, height = carry >> 1, height + 1
            if height % _STRIDE == 0:
                nodes.append((height, size >> height, node))
        peaks.append(node)
        if tenant is not None:
            entries, chain = tips.get(tenant, (0, hashlib.sha256(b"").digest()))
            tips[tenant] = entries + 1, hashlib.sha256(b"\x02" + chain + leaf).digest()
    _insert(connection, "nodes", ("height", "position", "hash"), nodes)
    given = [(at, name, entries, f"sha256:{chain.hex()}") for at, (name, (entries, chain)) in enumerate(tips.items())]
    _insert(connection, "tips", ("position", "tenant", "entries", "chain"), given)
    level = [
        hashlib.sha256(
            b"\x00"
            + json.dumps(
                {"chain": chain, "entries": entries, "kind": "tenon.log-tip/v1", "tenant": name},
                separators=(",", ":"),
            ).encode()
        ).digest()
        for _, name, entries, chain in given
    ]
    height = 0
    while level:
        _insert(
            connection,
            "tip_nodes",
            ("height", "position", "hash"),
            [(height, at, node) for at, node in enumerate(level)],
        )
        level = [
            hashlib.sha256(b"\x01" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)
        ]
        height += 1


def _leaf(text: str) -> bytes:
    try:
        leaf = bytes.fromhex(text)
    except ValueError:
        leaf = b""
    return leaf if len(leaf) == 32 else bytes(32)


def _insert(
    connection: sa.Connection, table: str, columns: Sequence[str], rows: Iterable[tuple[object, ...]]
) -> None:
    batch = [dict(zip(columns, row, strict=True)) for row in rows]
    names, values = ", ".join(columns), ", ".join(f":{column}" for column in columns)
    for start in range(0, len(batch), _BATCH):
        connection.execute(
            sa.text(f"INSERT INTO {table} ({names}) VALUES ({values})"), batch[start : start + _BATCH]
        )


def _guard(postgresql: bool) -> None:
    for action in ("UPDATE", "DELETE", *(["TRUNCATE"] if postgresql else [])):
        trigger = f"CREATE TRIGGER nodes_no_{action.lower()} BEFORE {action} ON nodes "
        if postgresql:
            op.execute(trigger + "FOR EACH STATEMENT EXECUTE FUNCTION tenon_append_only()")
        else:
            op.execute(trigger + "BEGIN SELECT RAISE(ABORT, 'the nodes of the log are append-only'); END")
