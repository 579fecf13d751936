"""Where aliases point now; where they pointed before is in the log."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.models import AliasState
from registry.names import AdapterName
from registry.store.rows import AliasRow
from registry.store.tables.parsing import built


@dataclass(frozen=True, slots=True)
class AliasTable:
    session: Session

    def get(self, name: AdapterName, alias: str) -> AliasState | None:
        row = self.session.get(AliasRow, (name.tenant, name.adapter, alias))
        return _alias(row) if row else None

    def of(self, name: AdapterName) -> tuple[AliasState, ...]:
        mine = (AliasRow.tenant == name.tenant, AliasRow.adapter == name.adapter)
        return _aliases(self.session.exec(select(AliasRow).where(*mine).order_by(col(AliasRow.alias))).all())

    def all(self) -> tuple[AliasState, ...]:
        order = (col(AliasRow.tenant), col(AliasRow.adapter), col(AliasRow.alias))
        return _aliases(self.session.exec(select(AliasRow).order_by(*order)).all())

    def put(self, state: AliasState, *, entry: int) -> None:
        self.session.merge(
            AliasRow(
                tenant=state.tenant,
                adapter=state.adapter,
                alias=state.alias,
                version=str(state.version),
                epoch=state.epoch,
                entry=entry,
            )
        )
        self.session.flush()


def _aliases(rows: Sequence[AliasRow]) -> tuple[AliasState, ...]:
    return tuple(_alias(row) for row in rows)


def _alias(row: AliasRow) -> AliasState:
    return built(
        AliasState,
        tenant=row.tenant,
        adapter=row.adapter,
        alias=row.alias,
        version=row.version,
        epoch=row.epoch,
    )
