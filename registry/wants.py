"""Which versions engines should hold, why, and for whom: what the aliases and the preparations say."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final, Literal, NamedTuple, TypeAlias

from registry.clock import passed
from registry.digests import Digest
from registry.feed import AliasKey, State
from registry.models import Level, Tenant

Why: TypeAlias = Literal["live", "canary", "prepared", "former", "shadow"]
IMPORTANCE: Final[dict[Why, int]] = {"live": 0, "canary": 1, "prepared": 2, "former": 3, "shadow": 4}
"""Who gets a place first: those who are answered by it now, then those who soon are, then the way back."""


class Want(NamedTuple):
    """In the order of importance, as tuples compare."""

    unpinned: bool
    """Of a tenant on the lowest level."""
    importance: int
    version: Digest
    why: Why
    rank: int
    base: Digest
    tenant: Tenant


def wants(state: State, now: datetime) -> dict[Digest, Want]:
    """Each version once, for its best reason. Nothing of suspended tenants or of aliases that expired, and
    nothing that was revoked."""
    found: dict[Digest, Want] = {}
    for key, version, why in _reasons(state, now):
        importance = IMPORTANCE[why]
        known = found.get(version)
        if known is not None and known.importance <= importance:
            continue
        tenant, published = state.tenants.get(key[0]), state.versions.get(version)
        if tenant is None or tenant.suspended or published is None or published.revoked:
            continue
        unpinned = tenant.isolation.level is Level.SHARED
        found[version] = Want(unpinned, importance, version, why, published.rank, published.base, tenant)
    return found


def _reasons(state: State, now: datetime) -> Iterator[tuple[AliasKey, Digest, Why]]:
    for key, alias in state.aliases.items():
        if alias.expires_at is not None and passed(alias.expires_at, now):
            continue
        yield key, alias.version, "live"
        for canary in alias.canaries:
            yield key, canary.version, "canary"
        for shadow in alias.shadows:
            yield key, shadow, "shadow"
        if alias.former is not None:
            yield key, alias.former.version, "former"
    for key, preparation in state.preparations.items():
        moved = state.aliases.get(key)
        if (moved.epoch if moved else 0) <= preparation.epoch and not passed(preparation.until, now):
            yield key, preparation.version, "prepared"
