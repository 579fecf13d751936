"""Tenants."""

from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.models import Tenant
from registry.store.rows import TenantRow
from registry.store.tables.parsing import built


@dataclass(frozen=True, slots=True)
class TenantTable:
    session: Session

    def has(self, tenant: str) -> bool:
        return self.session.get(TenantRow, tenant) is not None

    def all(self) -> tuple[Tenant, ...]:
        rows = self.session.exec(select(TenantRow).order_by(col(TenantRow.id))).all()
        return tuple(built(Tenant, id=row.id, display_name=row.display_name) for row in rows)

    def add(self, tenant: Tenant, *, entry: int) -> None:
        self.session.add(TenantRow(id=tenant.id, display_name=tenant.display_name, entry=entry))
        self.session.flush()
