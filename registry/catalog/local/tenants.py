"""Tenants: who there is, what each may use, and where its versions live."""

from registry.catalog import tenants
from registry.catalog.isolation import isolate
from registry.catalog.local.part import Part
from registry.digests import Digest
from registry.models import Isolation, Quota, Tenant


class Tenants(Part):
    def create_tenant(self, tenant: Tenant, *, actor: str) -> None:
        """Raises AlreadyExists."""
        with self._change_by(actor) as change:
            tenants.create(change, tenant)

    def tenant(self, tenant: str) -> Tenant:
        """Raises TenantNotFound."""
        with self._database.read() as rows:
            return tenants.get(rows, tenant)

    def tenants(self, *, after: str | None = None, limit: int | None = None) -> tuple[Tenant, ...]:
        """By id; ``after`` and ``limit`` are those of every list: the last one seen, and how many."""
        with self._database.read() as rows:
            return rows.tenants.page(after, limit)

    def suspend_tenant(self, tenant: str, *, reason: str, actor: str, expect: Digest | None = None) -> None:
        """None of its keys opens anything until it is resumed. ``expect``: the identity of the tenant that
        the caller saw, as in the methods below. Raises TenantNotFound, TenantMoved."""
        with self._change_by(actor) as change:
            tenants.check_unchanged(change, tenant, expect)
            tenants.suspend(change, tenant, reason=reason)

    def resume_tenant(self, tenant: str, *, actor: str, expect: Digest | None = None) -> None:
        """Raises TenantNotFound."""
        with self._change_by(actor) as change:
            tenants.check_unchanged(change, tenant, expect)
            tenants.resume(change, tenant)

    def set_quota(self, tenant: str, quota: Quota, *, actor: str, expect: Digest | None = None) -> None:
        """Raises TenantNotFound."""
        with self._change_by(actor) as change:
            tenants.check_unchanged(change, tenant, expect)
            tenants.set_quota(change, tenant, quota)

    def rename_tenant(
        self, tenant: str, display_name: str, *, actor: str, expect: Digest | None = None
    ) -> None:
        """What people see; the id never changes. Raises TenantNotFound, InvalidDocument."""
        with self._change_by(actor) as change:
            tenants.check_unchanged(change, tenant, expect)
            tenants.rename(change, tenant, display_name)

    def isolate_tenant(
        self,
        tenant: str,
        isolation: Isolation,
        *,
        force: bool = False,
        actor: str,
        expect: Digest | None = None,
    ) -> Isolation:
        """Where the tenant's versions live from now on; they move there without a gap. A tenant that is to
        have an engine and is given none gets the one that serves fewest others. Raises TenantNotFound,
        TenantMoved, EngineNotFound, EngineGiven, InvalidInput; EngineNeeded for the last engine that others
        need, unless ``force``."""
        now = self._clock.now()
        with self._write(actor) as change:
            tenants.check_unchanged(change, tenant, expect)
            return isolate(change, tenant, isolation, force=force, now=now)
