"""Tenants."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.models import Isolation, Quota, Tenant
from registry.store.rows import TenantRow
from registry.store.tables.parsing import built, parsed, text_of


@dataclass(frozen=True, slots=True)
class TenantTable:
    session: Session

    def has(self, tenant: str) -> bool:
        return self.session.get(TenantRow, tenant) is not None

    def get(self, tenant: str) -> Tenant | None:
        row = self.session.get(TenantRow, tenant)
        return _tenant(row) if row else None

    def all(self) -> tuple[Tenant, ...]:
        return self.page()

    def page(self, after: str | None = None, limit: int | None = None) -> tuple[Tenant, ...]:
        """By id."""
        found = select(TenantRow).order_by(col(TenantRow.id))
        if after is not None:
            found = found.where(TenantRow.id > after)
        return _tenants(self.session.exec(found if limit is None else found.limit(limit)).all())

    def isolated(self) -> tuple[Tenant, ...]:
        """Those that do not simply share engines, by id: few."""
        found = select(TenantRow).where(col(TenantRow.isolation).is_not(None)).order_by(col(TenantRow.id))
        return _tenants(self.session.exec(found).all())

    def add(self, tenant: Tenant, *, entry: int) -> None:
        self.session.add(_row(tenant, entry))
        self.session.flush()

    def put(self, tenant: Tenant, *, entry: int) -> None:
        self.session.merge(_row(tenant, entry))
        self.session.flush()


def _row(tenant: Tenant, entry: int) -> TenantRow:
    return TenantRow(
        id=tenant.id,
        display_name=tenant.display_name,
        suspended=tenant.suspended,
        quota=text_of(tenant.quota),
        isolation=None if tenant.isolation == Isolation() else text_of(tenant.isolation),
        entry=entry,
    )


def _tenants(rows: Sequence[TenantRow]) -> tuple[Tenant, ...]:
    return tuple(_tenant(row) for row in rows)


def _tenant(row: TenantRow) -> Tenant:
    quota = parsed(Quota, row.quota).model_dump(mode="json")
    isolation = parsed(Isolation, row.isolation) if row.isolation else Isolation()
    return built(
        Tenant,
        id=row.id,
        display_name=row.display_name,
        suspended=row.suspended,
        quota=quota,
        isolation=isolation.model_dump(mode="json"),
    )
