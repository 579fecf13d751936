"""Which versions engines should hold, why, and for whom: what the aliases and the preparations say."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, Literal, NamedTuple, TypeAlias

from registry.clock import passed
from registry.digests import Digest
from registry.feed import State
from registry.models import Level, Tenant

Why: TypeAlias = Literal["live", "canary", "prepared", "former", "shadow"]
IMPORTANCE: Final[dict[Why, int]] = {"live": 0, "canary": 1, "prepared": 2, "former": 3, "shadow": 4}
"""Who gets a place first: those who are answered by it now, then those who soon are, then the way back."""
ANSWERING: Final = ("live", "canary")
"""Reasons for which somebody is answered by a version now: a slot is kept free for no other."""


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
    versions = state.versions
    # Looked up once: a tenant may have thousands of aliases.
    tenants = {
        name: (tenant, tenant.isolation.level is Level.SHARED)
        for name, tenant in state.tenants.items()
        if not tenant.suspended
    }

    def want(owner: str, version: Digest, why: Why) -> None:
        importance = IMPORTANCE[why]
        if (before := found.get(version)) is not None and before[1] <= importance:
            return
        tenant, published = tenants.get(owner), versions.get(version)
        if tenant is None or published is None or published.revoked:
            return
        parts = (tenant[1], importance, version, why, published.rank, published.base, tenant[0])
        found[version] = tuple.__new__(Want, parts)  # half the time of Want(...), 50,000 times

    for key, alias in state.aliases.items():
        if alias.expires_at is not None and passed(alias.expires_at, now):
            continue
        owner = key[0]
        want(owner, alias.version, "live")
        for canary in alias.canaries:
            want(owner, canary.version, "canary")
        for shadow in alias.shadows:
            want(owner, shadow, "shadow")
        if alias.former is not None:
            want(owner, alias.former.version, "former")
    for key, preparation in state.preparations.items():
        moved = state.aliases.get(key)
        if (moved.epoch if moved else 0) <= preparation.epoch and not passed(preparation.until, now):
            want(key[0], preparation.version, "prepared")
    return found


def ordered(found: Iterable[Want]) -> list[Want]:
    """The most important first. Whole tuples would take three times as long to compare as their digests."""
    levels: dict[tuple[bool, int], list[tuple[str, Want]]] = {}
    for want in found:
        levels.setdefault(want[:2], []).append((str(want[2]), want))
    return [want for level in sorted(levels) for _, want in sorted(levels[level], key=_digest)]


def _digest(pair: tuple[str, Want]) -> str:
    return pair[0]
