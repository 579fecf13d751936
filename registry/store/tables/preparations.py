"""What is being prepared for aliases, or last was."""

from dataclasses import dataclass

from sqlmodel import Session

from registry.names import AdapterName
from registry.promotions import Preparation
from registry.store.rows import PreparationRow
from registry.store.tables.parsing import built


@dataclass(frozen=True, slots=True)
class PreparationTable:
    session: Session

    def get(self, name: AdapterName, alias: str) -> Preparation | None:
        """The newest, in force or not."""
        row = self.session.get(PreparationRow, (name.tenant, name.adapter, alias))
        return _preparation(row) if row else None

    def put(self, preparation: Preparation, *, entry: int) -> None:
        """In the place of the one before."""
        self.session.merge(
            PreparationRow(
                tenant=preparation.tenant,
                adapter=preparation.adapter,
                alias=preparation.alias,
                version=str(preparation.version),
                epoch=preparation.epoch,
                until=preparation.until,
                entry=entry,
            )
        )
        self.session.flush()


def _preparation(row: PreparationRow) -> Preparation:
    return built(
        Preparation,
        tenant=row.tenant,
        adapter=row.adapter,
        alias=row.alias,
        version=row.version,
        epoch=row.epoch,
        until=row.until,
    )
