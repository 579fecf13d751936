"""The stored levels of the log's Merkle tree, and the tips of the tenants with theirs.

Everything but the tips is hashes only, which every scope may see: whoever proves that one tenant's entry is
in the log needs the hashes of others' entries, and never the entries.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from sqlalchemy import func
from sqlmodel import Session, col, select

from registry.digests import Digest
from registry.log.entries import TipsRoot
from registry.log.merkle import root
from registry.log.tiles import STRIDE, WIDTH, Nodes, Tiles, stored
from registry.log.tips import Tip
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
        if position is None:
            position = self._count(TipNodeRow)
            row = TipRow(position=position, tenant=tip.tenant, entries=tip.entries, chain=tip.chain)
        else:
            row = self.session.get_one(TipRow, position)
            row.entries, row.chain = tip.entries, tip.chain
        self.session.add(row)
        self._put_node(0, position, tip.leaf())
        self.session.flush()
        self._raise(position)

    def tip_tiles(self) -> Tiles:
        return Tiles(self._nodes(TipNodeRow), size=self._count(TipNodeRow))

    def tips_root(self) -> TipsRoot:
        tiles = self.tip_tiles()
        return TipsRoot(size=tiles.size, root=Digest(f"sha256:{tiles.root(tiles.size).hex()}"))

    def _raise(self, position: int) -> None:
        """Hash the stored levels above a changed tip again, where they are complete."""
        size, nodes = self._count(TipNodeRow), self._nodes(TipNodeRow)
        height, tile = STRIDE, position // WIDTH
        while (tile + 1) << height <= size:
            below = nodes(height - STRIDE, tile * WIDTH, (tile + 1) * WIDTH)
            self._put_node(height, tile, root(below))
            self.session.flush()
            height, tile = height + STRIDE, tile // WIDTH

    def _put_node(self, height: int, position: int, node: bytes) -> None:
        row = self.session.get(TipNodeRow, (height, position))
        if row is None:
            row = TipNodeRow(height=height, position=position, hash=node)
        row.hash = node
        self.session.add(row)

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


def _tip(row: TipRow) -> Tip:
    return built(Tip, tenant=row.tenant, entries=row.entries, chain=row.chain)
