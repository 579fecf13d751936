"""Request records that routers shipped. Not decided by entries; signed heads in the log vouch for them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.digests import Digest
from registry.shipping import StoredRecord
from registry.store.rows import RecordRow
from registry.store.tables.parsing import built


@dataclass(frozen=True, slots=True)
class ShippedTable:
    session: Session

    def tail(self, writer: str) -> tuple[int, Digest] | None:
        """(seq, digest) of the newest record of ``writer``."""
        newest = (
            select(RecordRow.seq, RecordRow.digest)
            .where(RecordRow.writer == writer)
            .order_by(col(RecordRow.seq).desc())
            .limit(1)
        )
        found = self.session.exec(newest).first()
        return (found[0], Digest(found[1])) if found else None

    def digests(self, writer: str, first: int, last: int) -> dict[int, Digest]:
        chosen = select(RecordRow.seq, RecordRow.digest).where(
            RecordRow.writer == writer, col(RecordRow.seq).between(first, last)
        )
        return {seq: Digest(digest) for seq, digest in self.session.exec(chosen).all()}

    def writers(self) -> tuple[str, ...]:
        return tuple(self.session.exec(select(RecordRow.writer).distinct().order_by(RecordRow.writer)).all())

    def lines(self, writer: str, first: int, most: int) -> tuple[str, ...]:
        """In order, from ``first`` on."""
        chosen = select(RecordRow.line).where(RecordRow.writer == writer, RecordRow.seq >= first)
        return tuple(self.session.exec(chosen.order_by(col(RecordRow.seq)).limit(most)).all())

    def add(self, records: Sequence[StoredRecord]) -> None:
        self.session.add_all(RecordRow(**dict(record)) for record in records)
        self.session.flush()

    def get(self, writer: str, seq: int) -> StoredRecord | None:
        row = self.session.get(RecordRow, (writer, seq))
        return built(StoredRecord, **row.model_dump()) if row else None
