"""The stored levels of the log's Merkle tree, and the tips of the tenants with theirs.

Everything but the tips is hashes only, which every scope may see: whoever proves that one tenant's entry is
in the log needs the hashes of others' entries, and never the entries.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import func
from sqlmodel import Session, col, select

from registry.errors import LogCorrupt
from registry.log.entries import TipsRoot
from registry.log.merkle import node_hash
from registry.log.tiles import Nodes, Tiles, stored
from registry.log.tips import Tip, tips_root
from registry.store.rows import NodeRow, TipNodeRow, TipRow
from registry.store.tables.parsing import built


@dataclass(frozen=True, slots=True)
class TreeTable:
    session: Session

    def extend(self, position: int, completed: Sequence[bytes]) -> None:
        """With leaf ``position``; ``completed`` is what the frontier gave for it."""
        for height, at, node in stored(position, completed):
            self.session.add(NodeRow(height=height, position=at, hash=node))

    def tiles(self, size: int) -> Tiles:
        return Tiles(self._nodes(NodeRow), size=size)

    def size(self) -> int:
        """How many leaves are stored."""
        return self._count(NodeRow)

    def nodes(self, height: int) -> Generator[tuple[int, bytes], None, None]:
        """(position, node) of a stored level, as it is stored."""
        found = select(NodeRow.position, NodeRow.hash).where(NodeRow.height == height)
        found = found.order_by(col(NodeRow.position))
        with self.session.execute(found, execution_options={"yield_per": 10_000}) as rows:
            yield from (tuple(row) for row in rows)

    def tip(self, tenant: str) -> tuple[int | None, Tip]:
        row = self.session.exec(select(TipRow).where(TipRow.tenant == tenant)).first()
        return (None, Tip(tenant=tenant)) if row is None else (row.position, _tip(row))

    def tips(self) -> tuple[tuple[int, Tip], ...]:
        """(position, tip), by position."""
        rows = self.session.exec(select(TipRow).order_by(col(TipRow.position))).all()
        return tuple((row.position, _tip(row)) for row in rows)

    def put_tip(self, position: int | None, tip: Tip) -> None:
        """Raises LogCorrupt when the tip before it is not the one that the tree holds: the next head would
        put a signature under it."""
        if position is None:
            position = self._tips()
            self._known.size = position + 1
            self.session.add(
                TipRow(position=position, tenant=tip.tenant, entries=tip.entries, chain=tip.chain)
            )
            self.session.flush()
            path = self._path(position, tip.leaf())
            self.session.connection().execute(_INSERT, _values(position, path))
        else:
            row = self.session.get_one(TipRow, position)
            before = self._path(position, _tip(row).leaf())
            top = len(before) - 1
            if self._tip_nodes([(top, position >> top)]) != before[-1:]:
                raise LogCorrupt("a tenant's tip is not the one that was signed last")
            row.entries, row.chain = tip.entries, tip.chain
            self.session.add(row)
            self.session.flush()
            path = self._path(position, tip.leaf())
            self.session.connection().execute(_UPDATE, _values(position, path))
        self._known.nodes.update({(at, position >> at): node for at, node in enumerate(path)})

    def tip_tiles(self) -> Tiles:
        return Tiles(self._nodes(TipNodeRow), size=self._tips())

    def tips_root(self) -> TipsRoot:
        size, wanted, start = self._tips(), [], 0
        for height in reversed(range(size.bit_length())):
            if size >> height & 1:
                wanted.append((height, start >> height))
                start += 1 << height
        return tips_root(size, self._tip_nodes(wanted))

    def tip_nodes(self) -> Generator[tuple[int, int, bytes], None, None]:
        """(height, position, node), as they are stored."""
        found = select(TipNodeRow.height, TipNodeRow.position, TipNodeRow.hash)
        found = found.order_by(col(TipNodeRow.height), col(TipNodeRow.position))
        with self.session.execute(found, execution_options={"yield_per": 10_000}) as rows:
            yield from (tuple(row) for row in rows)

    def _path(self, position: int, leaf: bytes) -> list[bytes]:
        """The leaf and every complete subtree over it. The tree of tips is stored at all heights, because
        each change wants its root, and so reads and writes only a path."""
        siblings, height = [], 0
        while (position >> height | 1) < self._tips() >> height:
            siblings.append((height, position >> height ^ 1))
            height += 1
        path = [leaf]
        for (at, sibling), node in zip(siblings, self._tip_nodes(siblings), strict=True):
            mine = path[-1]
            path.append(node_hash(mine, node) if sibling > position >> at else node_hash(node, mine))
        return path

    def _tip_nodes(self, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        """In the order in which they are wanted. Raises LogCorrupt when one is not there."""
        nodes = self._known.nodes
        missing = [where for where in wanted if where not in nodes]
        if missing:
            rows = self.session.connection().execute(_SELECT, {"wanted": missing})
            nodes.update({(height, position): node for height, position, node in rows})
        if any(where not in nodes for where in wanted):
            raise LogCorrupt("the stored tree of the tips has gaps")
        return [nodes[where] for where in wanted]

    @property
    def _known(self) -> "_Known":
        """A change asks for the same nodes before and after it: what this transaction read and wrote."""
        known: _Known = self.session.info.setdefault("tips", _Known())
        return known

    def _tips(self) -> int:
        """How many there are."""
        known = self._known
        if known.size is None:
            known.size = self._count(TipNodeRow)
        return known.size

    def _count(self, table: type[NodeRow] | type[TipNodeRow]) -> int:
        last = self.session.exec(select(func.max(table.position)).where(table.height == 0)).one()
        return 0 if last is None else last + 1

    def _nodes(self, table: type[NodeRow] | type[TipNodeRow]) -> Nodes:
        def read(height: int, start: int, end: int) -> Sequence[bytes]:
            found = select(table.hash).where(
                table.height == height, col(table.position) >= start, col(table.position) < end
            )
            return self.session.exec(found.order_by(col(table.position))).all()

        return read


class _Known:
    """Of one transaction, see :meth:`TreeTable._known`."""

    def __init__(self) -> None:
        self.size: int | None = None
        self.nodes: dict[tuple[int, int], bytes] = {}


_TABLE = sa.inspect(TipNodeRow).local_table
_AT = sa.tuple_(_TABLE.c.height, _TABLE.c.position)
_SELECT = sa.select(_TABLE).where(_AT.in_(sa.bindparam("wanted", expanding=True)))
_GIVEN: dict[str, Any] = {
    "height": sa.bindparam("h"),
    "position": sa.bindparam("p"),
    "hash": sa.bindparam("v"),
}
_INSERT = sa.insert(TipNodeRow).values(**_GIVEN)
_UPDATE = (
    sa.update(TipNodeRow)
    .where(_TABLE.c.height == sa.bindparam("h"), _TABLE.c.position == sa.bindparam("p"))
    .values(hash=sa.bindparam("v"))
)


def _values(position: int, path: Sequence[bytes]) -> list[dict[str, object]]:
    return [{"h": at, "p": position >> at, "v": node} for at, node in enumerate(path)]


def _tip(row: TipRow) -> Tip:
    return built(Tip, tenant=row.tenant, entries=row.entries, chain=row.chain)
