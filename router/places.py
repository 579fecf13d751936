"""Where a version can be asked: the engines that were seen to behave as it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from typing import NamedTuple

from registry.digests import Digest
from registry.feed import Delta, State
from registry.models import EngineState, Slot, VersionState
from registry.names import engine_name


@dataclass(frozen=True, slots=True)
class Place:
    """An engine that was seen to behave as a version."""

    engine: str
    boot: str
    url: str
    attestation: Digest
    capacity: int = 1
    """Its LoRA slots: the only size that an engine declares, and what it can work on at a time (D13)."""
    engine_version: str = ""
    seed: int = field(init=False, compare=False, repr=False)
    """64 bits of the engine's name, the same in all routers: which conversations prefer it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", _seed(self.engine))


@cache
def _seed(engine: str) -> int:
    return int.from_bytes(blake2b(engine.encode(), digest_size=8).digest(), "big")


class Held(NamedTuple):
    """A version that some engine serves, with all that a request needs of it: one look, for each request."""

    tenant: str
    adapter: str
    engine_name: str
    places: tuple[Place, ...]
    """By engine name; never empty."""


Places = Mapping[Digest, Held]


def everywhere(state: State) -> Places:
    found: dict[Digest, list[Place]] = {}
    for engine in sorted(state.slots):
        for slot in state.slots[engine].values():
            if (place := _place(state, slot)) is not None:
                found.setdefault(slot.version, []).append(place)
    return {version: _held(state.versions[version], places) for version, places in found.items()}


def after(known: Places, before: State, now: State, delta: Delta) -> Places:
    """``known`` brought from ``before`` to ``now``, looking only at what ``delta`` touches."""
    engines = {*delta.slots, *(engine.engine for engine in delta.engines)}
    versions = {version.version for version in delta.versions}
    for engine in engines:
        versions |= before.slots.get(engine, {}).keys() | now.slots.get(engine, {}).keys()
    if not versions:
        return known
    found = dict(known)
    for version in versions:
        # A place of an untouched engine stays, unless the version itself changed.
        held = known.get(version)
        holders = engines if held is None else engines | {place.engine for place in held.places}
        if places := list(_of(now, version, holders)):
            found[version] = _held(now.versions[version], places)
        else:
            found.pop(version, None)
    return found


def usable(home: EngineState) -> bool:
    """Whether its address is one that can be asked over HTTP."""
    return home.url.startswith(("http://", "https://", "http+unix://%2F"))


def _held(version: VersionState, places: list[Place]) -> Held:
    return Held(version.tenant, version.adapter, engine_name(version.version), tuple(places))


def _of(state: State, version: Digest, engines: Iterable[str]) -> Iterable[Place]:
    for engine in sorted(engines):
        slot = state.slots.get(engine, {}).get(version)
        if slot is not None and (place := _place(state, slot)) is not None:
            yield place


def _place(state: State, slot: Slot) -> Place | None:
    """Only on an engine that is up, in the boot that was attested, on the version's own base."""
    version, home = state.versions.get(slot.version), state.engines.get(slot.engine)
    if version is None or home is None or version.revoked or not home.up or home.boot != slot.boot:
        return None
    if home.base != version.base or not usable(home):
        return None
    return Place(home.engine, home.boot, home.url, slot.attestation, home.max_loras, home.engine_version)
