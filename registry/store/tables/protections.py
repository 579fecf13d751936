"""Which aliases need more than a verdict."""

from dataclasses import dataclass

from sqlmodel import Session, col, select

from registry.promotions import Protection
from registry.store.rows import ProtectionRow
from registry.store.tables.parsing import built


@dataclass(frozen=True, slots=True)
class ProtectionTable:
    session: Session

    def get(self, tenant: str, alias: str) -> Protection:
        """One that asks for nothing when none was set."""
        row = self.session.get(ProtectionRow, (tenant, alias))
        return _protection(row) if row else Protection(tenant=tenant, alias=alias)

    def of(self, tenant: str) -> tuple[Protection, ...]:
        found = select(ProtectionRow).where(ProtectionRow.tenant == tenant).order_by(col(ProtectionRow.alias))
        return tuple(_protection(row) for row in self.session.exec(found).all())

    def all(self) -> tuple[Protection, ...]:
        found = select(ProtectionRow).order_by(col(ProtectionRow.tenant), col(ProtectionRow.alias))
        return tuple(_protection(row) for row in self.session.exec(found).all())

    def put(self, protection: Protection, *, entry: int) -> None:
        self.session.merge(
            ProtectionRow(
                tenant=protection.tenant,
                alias=protection.alias,
                approvals=protection.approvals,
                release_signature=protection.release_signature,
                entry=entry,
            )
        )
        self.session.flush()


def _protection(row: ProtectionRow) -> Protection:
    return built(
        Protection,
        tenant=row.tenant,
        alias=row.alias,
        approvals=row.approvals,
        release_signature=row.release_signature,
    )
