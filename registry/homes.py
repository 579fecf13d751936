"""Where a version's slots may be: what the registry holds against whoever says otherwise.

Agents follow :func:`registry.fleet.assigned` by themselves. These rules do not depend on that: no slot begins
where its tenant's isolation forbids it, and those that were allowed for the time of a move end with the move.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from registry.digests import Digest
from registry.models import EngineState, Level, Tenant


def given(tenants: Iterable[Tenant]) -> dict[str, str]:
    """Engine -> the tenant that it belongs to. Were one given twice, the first tenant by name has it."""
    found: dict[str, str] = {}
    for tenant in tenants:
        for engine in tenant.isolation.engines:
            if engine not in found or tenant.id < found[engine]:
                found[engine] = tenant.id
    return found


def own(tenant: Tenant) -> bool:
    """Whether its versions belong on engines of its own, and nowhere else."""
    return tenant.isolation.level in (Level.DEDICATED, Level.MERGED)


def merged_with(engines: Iterable[str], live: Mapping[tuple[str, str], Digest]) -> dict[str, Digest]:
    """Engine -> the version its weights are to be merged with. ``engines``: a tenant's, of one base;
    ``live``: (adapter, alias) -> what it shows.

    By the order of names alone: an engine takes minutes to change, and what others reach meanwhile must not
    change its mind. Versions beyond the number of engines are served by shared ones.
    """
    versions = list(dict.fromkeys(live[alias] for alias in sorted(live)))
    names = sorted(engines)
    served = versions[: len(names)]
    return {name: served[number % len(served)] for number, name in enumerate(names)} if served else {}


@dataclass(frozen=True, slots=True)
class Homes:
    """Of one version."""

    version: Digest
    tenant: Tenant
    given: Mapping[str, str]
    """Engine -> the tenant that it was given to."""
    merged: frozenset[str] = frozenset()
    """Engines that are to be merged with it."""

    def belongs(self, engine: EngineState) -> bool:
        if self.merged:
            return engine.engine in self.merged and engine.merged == self.version
        owner = self.tenant.id if self.tenant.isolation.level is Level.DEDICATED else None
        if engine.merged is not None or self.given.get(engine.engine) != owner:
            return False
        return owner is None or engine.boot not in self.tenant.isolation.unclean

    def admits(self, engine: EngineState, holders: Iterable[EngineState]) -> bool:
        """Whether a new slot may begin there. ``holders``: where it has one.

        A version that is served and has no slot yet where it belongs may be taken by shared engines for the
        time of the move; one that is served nowhere is no such case: its own engines may just be down.
        """
        if self.belongs(engine):
            return True
        if engine.merged is not None:
            return False
        known = tuple(holders)
        if engine.engine in self.given:
            # Its own, before it starts again without what others left there: better than nowhere.
            dedicated = self.tenant.isolation.level is Level.DEDICATED
            return dedicated and self.given[engine.engine] == self.tenant.id and not known
        return bool(known) and not any(map(self.belongs, known))

    def ended(self, holders: Iterable[EngineState]) -> set[str]:
        """Engines whose slots end, because it has one where it belongs."""
        known = tuple(holders)
        strays = {engine.engine for engine in known if not self.belongs(engine)}
        return strays if len(strays) < len(known) else set()
