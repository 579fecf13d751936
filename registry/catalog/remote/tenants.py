"""Tenants, from afar."""

from registry.catalog.remote.pages import listed
from registry.catalog.remote.part import Part
from registry.catalog.remote.wire import path, read
from registry.models import Quota, Tenant


class Tenants(Part):
    def create_tenant(self, tenant: Tenant, *, actor: str) -> None:
        """Raises AlreadyExists."""
        self._wire.post("/tenants", tenant.model_dump(mode="json"))

    def tenant(self, tenant: str) -> Tenant:
        """Raises TenantNotFound."""
        return read(Tenant, self._wire.get(self._of(tenant)))

    def tenants(self, *, after: str | None = None, limit: int | None = None) -> tuple[Tenant, ...]:
        return listed(
            self._wire, path("tenants"), Tenant, key=lambda tenant: tenant.id, after=after, limit=limit
        )

    def suspend_tenant(self, tenant: str, *, reason: str, actor: str) -> None:
        """Nothing of the tenant is served from now on. Raises TenantNotFound."""
        self._change(tenant, {"suspended": True, "reason": reason})

    def resume_tenant(self, tenant: str, *, actor: str) -> None:
        """Raises TenantNotFound."""
        self._change(tenant, {"suspended": False})

    def set_quota(self, tenant: str, quota: Quota, *, actor: str) -> None:
        """Raises TenantNotFound."""
        self._change(tenant, {"quota": quota.model_dump(mode="json")})

    def rename_tenant(self, tenant: str, display_name: str, *, actor: str) -> None:
        """What people see; the id never changes. Raises TenantNotFound."""
        self._change(tenant, {"display_name": display_name})

    def _change(self, tenant: str, change: dict[str, object]) -> None:
        self._wire.call("PATCH", self._of(tenant), json=change)
