"""Policies, from afar."""

from registry.catalog.remote.errors import AnswerInvalid
from registry.catalog.remote.pages import listed
from registry.catalog.remote.part import Part
from registry.catalog.remote.wire import member, read
from registry.digests import Digest
from registry.models import Policy


class Policies(Part):
    def publish_policy(self, policy: Policy, *, actor: str) -> Digest:
        """Raises UnsupportedSchema, TenantNotFound, AnswerInvalid."""
        answer = self._wire.post(self._of(policy.tenant, "policies"), policy.model_dump(mode="json"))
        digest = read(Digest, member(answer, "digest"))
        if digest != policy.identity():
            raise AnswerInvalid("the registry published another policy than it was given")
        return digest

    def policy(self, digest: Digest, *, tenant: str | None = None) -> Policy:
        """Of the key's own tenant, or of ``tenant``. Raises PolicyNotFound, AnswerInvalid."""
        whose = tenant or self._own_tenant(f"the policy {digest.short}")
        policy = read(Policy, self._wire.get(self._of(whose, "policies", digest)))
        if policy.identity() != digest:
            raise AnswerInvalid("the registry's policy is not the one that was asked for")
        return policy

    def policies(
        self, tenant: str, *, after: Digest | None = None, limit: int | None = None
    ) -> tuple[Policy, ...]:
        """By digest. Raises TenantNotFound."""
        at = self._of(tenant, "policies")
        return listed(self._wire, at, Policy, after=after, limit=limit)
