"""The feed is the same on every database, whatever its order of letters."""

from registry.blobs.memory import InMemoryBlobs
from registry.catalog.local.catalog import LocalCatalog
from registry.clock import ManualClock
from registry.feed import Delta, State
from registry.models import Quota, Role, Tenant
from tests.support.registries import signer
from tests.support.stores import connect

NAMES = ("a_b", "ab", "a-b", "a1", "b", "1a", "a")
"""Sorted one way as bytes and another way as words."""


def test_what_is_told_is_in_the_order_of_bytes_and_adds_up(store: str) -> None:
    database = connect(store)
    try:
        catalog = LocalCatalog(
            database=database, blobs=InMemoryBlobs(), signer=signer("log"), clock=ManualClock()
        )
        for name in NAMES:
            catalog.create_tenant(Tenant(id=name, display_name=name), actor="test")
        key, _ = catalog.issue_key("ab", role=Role.INFERENCE, actor="test")
        catalog.limit_key(key.id, Quota(tokens_per_day=7), actor="test")
        middle = catalog.snapshot()
        assert [found.quota for found in middle.keys] == [Quota(tokens_per_day=7)]
        catalog.suspend_tenant("a-b", reason="unpaid", actor="test")
        catalog.revoke_key(key.id, actor="test")
        end = catalog.snapshot()
        assert [tenant.id for tenant in end.tenants] == sorted(NAMES)
        delta = catalog.changes(*middle.position)
        assert isinstance(delta, Delta)
        assert [tenant.id for tenant in delta.tenants] == ["a-b"]
        assert [(found.id, found.revoked) for found in delta.keys] == [(key.id, True)]
        assert State.of(middle).after(delta).snapshot() == end
        assert catalog.changes(*end.position) is None
    finally:
        database.close()
