"""Sums of usage, and how far each writer was counted. Not decided by entries."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from registry.digests import Digest
from registry.store.rows import UsageRow, UsageWriterRow
from registry.store.tables.parsing import built
from registry.usage import UsageLine

_SUMS = ("requests", "prompt_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True)
class UsageTable:
    session: Session

    def counted(self, writer: str) -> tuple[int, Digest] | None:
        """(seq, digest) of the newest batch of ``writer``."""
        row = self.session.get(UsageWriterRow, writer)
        return (row.seq, Digest(row.digest)) if row else None

    def count(self, writer: str, seq: int, digest: Digest, lines: Collection[UsageLine]) -> None:
        """``lines``: at most one a tenant, day and version."""
        self.session.merge(UsageWriterRow(writer=writer, seq=seq, digest=str(digest)))
        self.session.flush()
        if not lines:
            return
        # The same statement in two dialects: SQLAlchemy has no common spelling of ON CONFLICT.
        insert = (sqlite.insert if self.session.get_bind().dialect.name == "sqlite" else postgresql.insert)(
            UsageRow
        )
        added = insert.on_conflict_do_update(
            index_elements=["tenant", "day", "version"],
            set_={name: getattr(UsageRow, name) + getattr(insert.excluded, name) for name in _SUMS},
        )
        self.session.connection().execute(added, [line.model_dump(mode="json") for line in lines])

    def of(self, tenant: str, *, first_day: str, last_day: str) -> tuple[UsageLine, ...]:
        found = (
            select(UsageRow)
            .where(UsageRow.tenant == tenant, UsageRow.day >= first_day, UsageRow.day <= last_day)
            .order_by(col(UsageRow.day), col(UsageRow.adapter), col(UsageRow.version))
        )
        return tuple(
            built(
                UsageLine,
                tenant=row.tenant,
                adapter=row.adapter,
                version=row.version,
                day=row.day,
                requests=row.requests,
                prompt_tokens=row.prompt_tokens,
                completion_tokens=row.completion_tokens,
            )
            for row in self.session.exec(found).all()
        )
