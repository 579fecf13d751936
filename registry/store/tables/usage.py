"""Sums of usage, and how far each writer was counted. Not decided by entries."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from registry.digests import Digest
from registry.store.rows import UsageRow, UsageWriterRow
from registry.store.tables.parsing import built
from registry.usage import By, UsageLine, UsageSum

KEYS: Final[Mapping[By | None, tuple[str, ...]]] = {
    None: ("day", "adapter", "version"),
    "day": ("day",),
    "version": ("adapter", "version"),
}
"""What tells the sums of a list apart, and their order."""
_SUMS: Final = ("requests", "prompt_tokens", "completion_tokens")


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

    def sums(
        self,
        tenant: str,
        *,
        first_day: str,
        last_day: str,
        by: By | None,
        after: Sequence[str] | None,
        limit: int | None,
    ) -> tuple[UsageSum, ...]:
        """By day, adapter and version, as far as they are told apart; ``after``: those of the last.

        A page by version reads all lines of its days, as no index is in that order: 80 ms for 30,000 of them.
        """
        keys = [col(getattr(UsageRow, name)) for name in KEYS[by]]
        counted = [col(getattr(UsageRow, name)) for name in _SUMS]
        found = sa.select(*keys, *(counted if by is None else map(sa.func.sum, counted))).where(
            col(UsageRow.tenant) == tenant, col(UsageRow.day).between(first_day, last_day)
        )
        if by is not None:
            found = found.group_by(*keys)
        if after is not None:
            found = found.where(sa.tuple_(*keys) > tuple(after))
            if by != "version":
                found = found.where(col(UsageRow.day) >= after[0])  # the index begins with it
        found = found.order_by(*keys)
        rows = self.session.execute(found if limit is None else found.limit(limit)).all()
        none = {"tenant": tenant, "day": None, "adapter": None, "version": None}
        return tuple(
            built(
                UsageSum,
                **none | dict(zip(KEYS[by], row, strict=False)),
                **{name: int(count) for name, count in zip(_SUMS, row[len(keys) :], strict=True)},
            )
            for row in rows
        )

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
