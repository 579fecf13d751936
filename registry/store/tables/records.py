"""How far each writer of request records has signed."""

from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.models import RecordHead
from registry.store.rows import RecordHeadRow
from registry.store.tables.parsing import built


@dataclass(frozen=True, slots=True)
class RecordHeadTable:
    session: Session

    def get(self, writer: str) -> RecordHead | None:
        row = self.session.get(RecordHeadRow, writer)
        return _head(row) if row else None

    def all(self) -> tuple[RecordHead, ...]:
        rows = self.session.exec(select(RecordHeadRow).order_by(col(RecordHeadRow.writer))).all()
        return tuple(_head(row) for row in rows)

    def put(self, head: RecordHead, *, entry: int) -> None:
        self.session.merge(
            RecordHeadRow(writer=head.writer, seq=head.seq, digest=str(head.digest), at=head.at, entry=entry)
        )
        self.session.flush()


def _head(row: RecordHeadRow) -> RecordHead:
    return built(RecordHead, writer=row.writer, seq=row.seq, digest=row.digest, at=row.at)
