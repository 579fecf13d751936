"""Create tenants."""

from registry.catalog.change import Change
from registry.catalog.projection import TENANT_CREATED
from registry.errors import AlreadyExists, TenantNotFound
from registry.models import Tenant
from registry.store.transaction import Transaction


def create(change: Change, tenant: Tenant) -> None:
    if change.rows.tenants.has(tenant.id):
        raise AlreadyExists(f"there is already a tenant {tenant.id}")
    change.write(TENANT_CREATED, tenant.id, {"tenant": tenant.model_dump(mode="json")})


def require(rows: Transaction, tenant: str) -> None:
    """Raises TenantNotFound."""
    if not rows.tenants.has(tenant):
        raise TenantNotFound(f"there is no tenant {tenant[:80]!r}")
