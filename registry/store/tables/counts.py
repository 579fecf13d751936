"""What routers let through, window by window. Not decided by entries."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import delete, func
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from registry.counting import Count
from registry.store.rows import CountRow
from registry.store.tables.parsing import built

_AT_ONCE = 500
"""Subjects in one question: SQLite takes 32,766 values, older ones 999."""


@dataclass(frozen=True, slots=True)
class CountTable:
    session: Session

    def put(self, writer: str, seq: int, counts: Iterable[tuple[Count, int]]) -> None:
        """(count, second until which it matters); what a later report said stays."""
        rows = [
            {
                "subject": count.subject,
                "kind": count.kind,
                "slot": count.slot,
                "writer": writer,
                "seq": seq,
                "value": count.value,
                "until": until,
            }
            for count, until in counts
        ]
        if not rows:
            return
        # The same statement in two dialects: SQLAlchemy has no common spelling of ON CONFLICT.
        insert = (sqlite.insert if self.session.get_bind().dialect.name == "sqlite" else postgresql.insert)(
            CountRow
        )
        put = insert.on_conflict_do_update(
            index_elements=["subject", "kind", "slot", "writer"],
            set_={name: getattr(insert.excluded, name) for name in ("seq", "value", "until")},
            where=col(CountRow.seq) < insert.excluded.seq,
        )
        self.session.connection().execute(put, rows)

    def forget(self, now: int) -> None:
        """Windows that are past, and what runs on routers that are gone."""
        self.session.connection().execute(delete(CountRow).where(col(CountRow.until) <= now))

    def of_others(self, writer: str, subjects: Collection[str]) -> tuple[Count, ...]:
        """Sums over all writers but this one."""
        named, found = sorted(subjects), []
        for start in range(0, len(named), _AT_ONCE):
            sums = (
                select(CountRow.subject, CountRow.kind, CountRow.slot, func.sum(CountRow.value))
                .where(
                    col(CountRow.subject).in_(named[start : start + _AT_ONCE]),
                    CountRow.writer != writer,
                    CountRow.value > 0,
                )
                .group_by(CountRow.subject, CountRow.kind, col(CountRow.slot))
                .order_by(CountRow.subject, CountRow.kind, col(CountRow.slot))
            )
            found += [
                built(Count, subject=subject, kind=kind, slot=slot, value=int(value))
                for subject, kind, slot, value in self.session.exec(sums).all()
            ]
        return tuple(found)

    def other_routers(self, writer: str) -> int:
        found = select(func.count()).where(CountRow.kind == "router", CountRow.writer != writer)
        return int(self.session.exec(found).one())
