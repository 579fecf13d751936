"""Which versions belong on an engine, and what to do about it: pure.

Nothing here evicts. A version that no alias wants any more stays loaded (going back to it is free), its name
is never given to anything else, and a full engine says so instead of making room under running requests.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime

from registry.clock import passed
from registry.digests import Digest
from registry.feed import State


@dataclass(frozen=True, slots=True)
class Capacity:
    ready: int
    """Versions in service at a time: vLLM's device slots. More active adapters than slots starve (D13)."""
    names: int
    """Versions ever loaded in one boot: vLLM's CPU cache. One more would evict another (D3)."""
    rank: int
    """The largest LoRA rank that a slot holds."""

    def __post_init__(self) -> None:
        if not 1 <= self.ready <= self.names:
            raise ValueError(f"{self.ready} ready slots and {self.names} names cannot both hold")


@dataclass(frozen=True, slots=True)
class Wanted:
    version: Digest
    rank: int


@dataclass(frozen=True, slots=True)
class Plan:
    serve: tuple[Digest, ...]
    """In service now or as soon as they are loaded and attested."""
    load: tuple[Digest, ...]
    """The part of ``serve`` that the engine does not hold yet, in the order to load."""
    withdraw: tuple[Digest, ...]
    """Loaded and not to be served: they stay in memory."""
    unplaced: Mapping[Digest, str]
    """Wanted and not possible here, with the reason."""
    recycle: bool
    """A fresh boot would place more: names are used up by versions that nobody wants any more."""


def wanted(state: State, base: Digest, now: datetime) -> tuple[Wanted, ...]:
    """Every version of this base that some alias may be answered by, in digest order: not those of aliases
    that expired or of suspended tenants, and nothing that was revoked."""
    found: dict[Digest, Wanted] = {}
    for alias in state.aliases.values():
        tenant = state.tenants.get(alias.tenant)
        if tenant is None or tenant.suspended or passed(alias.expires_at, now):
            continue
        for version in (alias.version, *(canary.version for canary in alias.canaries)):
            known = state.versions.get(version)
            if known is not None and known.base == base and not known.revoked:
                found[version] = Wanted(version=version, rank=known.rank)
    return tuple(found[version] for version in sorted(found))


def plan(
    targets: Sequence[Wanted], *, loaded: Set[Digest], unfit: Mapping[Digest, str], capacity: Capacity
) -> Plan:
    """``loaded``: every name this boot was ever asked to load, whether that worked or not.
    ``unfit``: versions known not to be servable in this boot, with the reason.

    Versions already loaded come first, so that a newcomer never pushes out what is in service.
    """
    unplaced: dict[Digest, str] = {}
    serve: list[Digest] = []
    load: list[Digest] = []
    full_of_names = False
    for target in sorted(targets, key=lambda target: (target.version not in loaded, target.version)):
        version = target.version
        if version in unfit:
            unplaced[version] = unfit[version]
        elif target.rank > capacity.rank:
            unplaced[version] = f"its rank {target.rank} is above the engine's {capacity.rank}"
        elif len(serve) >= capacity.ready:
            unplaced[version] = f"all {capacity.ready} slots of the engine are taken"
        elif version in loaded:
            serve.append(version)
        elif len(loaded) + len(load) >= capacity.names:
            full_of_names = True
            unplaced[version] = f"this boot of the engine has loaded all {capacity.names} names it may"
        else:
            serve.append(version)
            load.append(version)
    kept = {target.version for target in targets}
    return Plan(
        serve=tuple(serve),
        load=tuple(load),
        withdraw=tuple(sorted(loaded - set(serve))),
        unplaced=unplaced,
        recycle=full_of_names and bool(loaded - kept),
    )
