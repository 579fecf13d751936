"""Which versions have a device slot kept for them, and on which engines: of tenants on the level ``pinned``,
what answers somebody now (docs/concepts/fleet.md)."""

from collections.abc import Mapping
from typing import NamedTuple

from registry.digests import Digest
from registry.feed import AliasKey, Delta, State
from registry.models import AliasState, Level
from router.places import Places

_ANSWERING = Mapping[AliasKey, tuple[Digest, ...]]


class Pins(NamedTuple):
    answering: _ANSWERING
    """Aliases of pinned tenants alone, with their live version and canaries."""
    on: Mapping[str, frozenset[Digest]]
    """Engine -> the versions with a slot of their own there."""


NONE = Pins({}, {})


def everywhere(state: State, places: Places) -> Pins:
    pinned = _pinned(state)
    if not pinned:
        return NONE
    answering = {key: _versions(alias) for key, alias in state.aliases.items() if key[0] in pinned}
    return Pins(answering, _on(answering, places))


def after(known: Pins, before: State, now: State, places: Places, delta: Delta) -> Pins:
    """``known`` brought from ``before`` to ``now``. Looks at all aliases only when a tenant was pinned or is
    no longer."""
    if delta.tenants and any(
        (tenant.isolation.level is Level.PINNED)
        != ((old := before.tenants.get(tenant.id)) is not None and old.isolation.level is Level.PINNED)
        for tenant in delta.tenants
    ):
        return everywhere(now, places)
    answering = dict(known.answering)
    for alias in delta.aliases:
        owner = now.tenants.get(alias.tenant)
        if owner is not None and owner.isolation.level is Level.PINNED:
            answering[alias.tenant, alias.adapter, alias.alias] = _versions(alias)
    if not answering:
        return NONE
    if answering == known.answering and not (delta.slots or delta.engines or delta.versions):
        return known
    return Pins(answering, _on(answering, places))


def _pinned(state: State) -> set[str]:
    return {name for name, tenant in state.tenants.items() if tenant.isolation.level is Level.PINNED}


def _versions(alias: AliasState) -> tuple[Digest, ...]:
    return (alias.version, *(canary.version for canary in alias.canaries))


def _on(answering: _ANSWERING, places: Places) -> dict[str, frozenset[Digest]]:
    """On each engine one slot is left for all others: the registry places no more, and what it withdraws may
    still be here for a moment."""
    found: dict[str, set[Digest]] = {}
    most: dict[str, int] = {}
    for version in {each for versions in answering.values() for each in versions}:
        held = places.get(version)
        for place in held.places if held is not None else ():
            found.setdefault(place.engine, set()).add(version)
            most[place.engine] = place.capacity - 1
    return {
        engine: frozenset(sorted(versions)[: most[engine]])
        for engine, versions in found.items()
        if most[engine] > 0
    }
