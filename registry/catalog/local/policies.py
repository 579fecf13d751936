"""Policies of tenants."""

from registry.catalog import policies, tenants
from registry.catalog.local.part import Part
from registry.digests import Digest
from registry.models import Policy


class Policies(Part):
    def publish_policy(self, policy: Policy, *, actor: str) -> Digest:
        """Raises UnsupportedSchema, TenantNotFound."""
        with self._change_by(actor) as change:
            return policies.publish(change, policy)

    def policy(self, digest: Digest) -> Policy:
        """Raises PolicyNotFound."""
        with self._database.read() as rows:
            return policies.get(rows, digest)

    def policies(
        self, tenant: str, *, after: Digest | None = None, limit: int | None = None
    ) -> tuple[Policy, ...]:
        """All that the tenant ever published, by digest. Raises TenantNotFound."""
        with self._database.read() as rows:
            tenants.require(rows, tenant)
            return tuple(rows.policies.of(tenant, after=after, limit=limit).values())
