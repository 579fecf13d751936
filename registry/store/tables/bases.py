"""Base models and their contracts."""

from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.contract import Contract
from registry.digests import Digest
from registry.models import Base
from registry.store.rows import BaseRow
from registry.store.tables.parsing import parsed, text_of


@dataclass(frozen=True, slots=True)
class BaseTable:
    session: Session

    def get(self, digest: str) -> tuple[Base, Contract] | None:
        row = self.session.get(BaseRow, digest)
        return (
            (parsed(Base, row.document, digest=row.digest), parsed(Contract, row.contract)) if row else None
        )

    def latest(self, name: str) -> Digest | None:
        """The base registered last under ``name``."""
        found = select(BaseRow.digest).where(BaseRow.name == name)
        found = found.order_by(col(BaseRow.entry).desc()).limit(1)
        digest = self.session.exec(found).first()
        return Digest(digest) if digest else None

    def all(self) -> dict[Digest, Base]:
        rows = self.session.exec(select(BaseRow).order_by(col(BaseRow.digest))).all()
        return {Digest(row.digest): parsed(Base, row.document, digest=row.digest) for row in rows}

    def put(self, base: Base, contract: Contract, *, entry: int) -> None:
        """The row of ``base``, new or with its latest contract and entry."""
        self.session.merge(
            BaseRow(
                digest=str(base.identity()),
                name=base.name,
                document=text_of(base),
                contract=text_of(contract),
                entry=entry,
            )
        )
        self.session.flush()
