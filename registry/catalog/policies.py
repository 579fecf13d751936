"""Publish policies."""

from registry.catalog import tenants
from registry.catalog.change import Change
from registry.catalog.projection import POLICY_PUBLISHED
from registry.digests import Digest
from registry.errors import PolicyNotFound
from registry.models import Policy
from registry.policies import check_policy
from registry.store.transaction import Transaction


def publish(change: Change, policy: Policy) -> Digest:
    """Publishing the same policy twice changes nothing. Raises UnsupportedSchema, TenantNotFound."""
    check_policy(policy)
    tenants.require(change.rows, policy.tenant)
    digest = policy.identity()
    if change.rows.policies.get(digest) is None:
        change.write(POLICY_PUBLISHED, digest, {"policy": policy.model_dump(mode="json")})
    return digest


def get(rows: Transaction, digest: str) -> Policy:
    found = rows.policies.get(digest)
    if found is None:
        raise PolicyNotFound(f"there is no policy {digest[:80]!r}")
    return found
