"""Tenants, from afar."""

from registry.catalog.fleet import Fleet
from registry.catalog.remote.pages import listed
from registry.catalog.remote.part import Part
from registry.catalog.remote.wire import path, read
from registry.digests import Digest
from registry.models import Isolation, Quota, Tenant


class Tenants(Part):
    def create_tenant(self, tenant: Tenant, *, actor: str) -> None:
        """Raises AlreadyExists."""
        self._wire.post("/tenants", tenant.model_dump(mode="json"))

    def tenant(self, tenant: str) -> Tenant:
        """Raises TenantNotFound."""
        return read(Tenant, self._wire.get(self._of(tenant)))

    def tenants(self, *, after: str | None = None, limit: int | None = None) -> tuple[Tenant, ...]:
        return listed(self._wire, path("tenants"), Tenant, after=after, limit=limit)

    def suspend_tenant(self, tenant: str, *, reason: str, actor: str, expect: Digest | None = None) -> None:
        """Nothing of the tenant is served from now on. Raises TenantNotFound."""
        self._change(tenant, {"suspended": True, "reason": reason}, expect)

    def resume_tenant(self, tenant: str, *, actor: str, expect: Digest | None = None) -> None:
        """Raises TenantNotFound."""
        self._change(tenant, {"suspended": False}, expect)

    def set_quota(self, tenant: str, quota: Quota, *, actor: str, expect: Digest | None = None) -> None:
        """Raises TenantNotFound."""
        self._change(tenant, {"quota": quota.model_dump(mode="json")}, expect)

    def rename_tenant(
        self, tenant: str, display_name: str, *, actor: str, expect: Digest | None = None
    ) -> None:
        """What people see; the id never changes. Raises TenantNotFound."""
        self._change(tenant, {"display_name": display_name}, expect)

    def isolate_tenant(
        self,
        tenant: str,
        isolation: Isolation,
        *,
        force: bool = False,
        actor: str,
        expect: Digest | None = None,
    ) -> Isolation:
        """Where the tenant's versions live from now on; they move there without a gap. Raises TenantNotFound,
        TenantMoved, EngineNotFound, EngineGiven, InvalidInput; EngineNeeded for the last engine that others
        need, unless ``force``."""
        body = isolation.model_dump(mode="json") | {"force": force}
        headers = {} if expect is None else {"If-Match": f'"{expect.hex}"'}
        answer = self._wire.call("PUT", f"{self._of(tenant)}/isolation", json=body, headers=headers)
        return read(Isolation, answer.json())

    def fleet(self) -> Fleet:
        """All engines, what they hold, and for whom."""
        return read(Fleet, self._wire.get("/fleet"))

    def _change(self, tenant: str, change: dict[str, object], expect: Digest | None) -> None:
        """``expect``: the identity of the tenant that was seen; TenantMoved when it is another by now."""
        headers = {} if expect is None else {"If-Match": f'"{expect.hex}"'}
        self._wire.call("PATCH", self._of(tenant), json=change, headers=headers)
