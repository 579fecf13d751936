"""Where aliases point now; where they pointed before is in the log."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import tuple_
from sqlmodel import Session, col, select

from registry import canonical
from registry.errors import InvalidDocument
from registry.models import AliasState
from registry.names import AdapterName
from registry.store.errors import StoreCorrupt
from registry.store.rows import AliasRow
from registry.store.tables.parsing import built, text_of


@dataclass(frozen=True, slots=True)
class AliasTable:
    session: Session

    def get(self, name: AdapterName, alias: str) -> AliasState | None:
        row = self.session.get(AliasRow, (name.tenant, name.adapter, alias))
        return _alias(row) if row else None

    def of(self, name: AdapterName) -> tuple[AliasState, ...]:
        mine = (AliasRow.tenant == name.tenant, AliasRow.adapter == name.adapter)
        return _aliases(self.session.exec(select(AliasRow).where(*mine).order_by(col(AliasRow.alias))).all())

    def of_each(self, names: Sequence[AdapterName]) -> dict[AdapterName, tuple[AliasState, ...]]:
        """The aliases of each, by alias."""
        pair = tuple_(col(AliasRow.tenant), col(AliasRow.adapter))
        wanted = pair.in_([(name.tenant, name.adapter) for name in names])
        found: dict[AdapterName, list[AliasRow]] = {name: [] for name in names}
        for row in self.session.exec(select(AliasRow).where(wanted).order_by(col(AliasRow.alias))):
            found[AdapterName(row.tenant, row.adapter)].append(row)
        return {name: _aliases(rows) for name, rows in found.items()}

    def shown(self, tenant: str) -> tuple[AliasState, ...]:
        """Those of a tenant, in the order of their names."""
        found = select(AliasRow).where(AliasRow.tenant == tenant)
        order = found.order_by(col(AliasRow.adapter), col(AliasRow.alias))
        return _aliases(self.session.exec(order).all())

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
                canaries=_list([canary.model_dump(mode="json") for canary in state.canaries]),
                shadows=_list(list(state.shadows)),
                expires_at=state.expires_at,
                former=text_of(state.former) if state.former else None,
                entry=entry,
            )
        )
        self.session.flush()


def _aliases(rows: Sequence[AliasRow]) -> tuple[AliasState, ...]:
    return tuple(_alias(row) for row in rows)


def _list(items: list[Any]) -> str:
    return canonical.encode(items).decode("utf-8")


def _alias(row: AliasRow) -> AliasState:
    try:
        canaries, shadows = canonical.decode(row.canaries), canonical.decode(row.shadows)
        former = canonical.decode(row.former) if row.former else None
    except InvalidDocument:
        raise StoreCorrupt("a stored AliasState cannot be read") from None
    return built(
        AliasState,
        tenant=row.tenant,
        adapter=row.adapter,
        alias=row.alias,
        version=row.version,
        epoch=row.epoch,
        canaries=canaries,
        shadows=shadows,
        expires_at=row.expires_at,
        former=former,
    )
