"""Which versions belong on which engine: pure, so that nobody has to coordinate.

Every agent, the control plane and ``tenon fleet`` compute the same from the same feed. A version stays
where it was attested; where it is new, rendezvous hashing decides. One that has to leave an engine (which
was given to somebody, or whose weights change, or whose tenant got one of its own) stays until it is
attested where it belongs: docs/concepts/fleet.md.
"""

from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from registry.clock import passed
from registry.digests import Digest
from registry.feed import State, uncollected
from registry.homes import given, merged_with, own
from registry.models import Level
from registry.rooms import Room, Tier, tiers
from registry.wants import Want, Why, wants


@dataclass(frozen=True, slots=True)
class Assigned:
    version: Digest
    rank: int
    why: Why
    pinned: bool = False
    leaving: bool = False
    """It is here until it is attested where it belongs. Nobody starts to load it here."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one engine is for."""

    versions: tuple[Assigned, ...] = ()
    """In order of importance; never more than the engine's names."""
    exclusive: str | None = None
    """The tenant that it was given to."""
    merged: Digest | None = None
    """The version that its weights should be merged with. Another value than the engine's own: it is needed
    by nobody as it is, and may start again."""


def assigned(state: State, now: datetime) -> dict[str, Share]:
    """The share of every engine that was ever announced; one that is down has nothing to serve."""
    with uncollected():
        return _Assignment(state, now).shares()


class _Assignment:
    """One computation. Works in rounds: of two equally important versions, both get a first engine before
    one gets a second, and who is attested somewhere keeps that before anybody is placed anew."""

    def __init__(self, state: State, now: datetime) -> None:
        self._state = state
        self._now = now
        self._given = given(state.tenants.values())
        self._rooms = {name: Room(engine) for name, engine in sorted(state.engines.items()) if engine.up}
        self._wants = sorted(wants(state, now).values())
        self._slots = self._attested()
        self._merged = self._targets()
        """Engine -> the version that it is to be merged with."""
        self._merged_on: dict[Digest, list[str]] = {}
        for engine, version in self._merged.items():
            self._merged_on.setdefault(version, []).append(engine)
        self._tiers: dict[tuple[Digest, str | None, int], tuple[Tier, ...]] = {}
        self._placed: dict[str, list[tuple[Want, Assigned]]] = {name: [] for name in self._rooms}
        self._count: dict[Digest, int] = {}
        self._free = sum(room.free for room in self._rooms.values())
        self._kept = self._unfinished()
        """Engines that have to start with other weights, and are still needed as they are."""

    def shares(self) -> dict[str, Share]:
        self._merge()
        self._keep_until_home()
        for _, level in groupby(self._wants, key=lambda want: want[:2]):
            self._place(list(level))
        return {
            name: Share(
                tuple(found for _, found in sorted(self._placed.get(name, []), key=_first)),
                exclusive=self._given.get(name),
                merged=engine.merged if name in self._kept else self._merged.get(name),
            )
            for name, engine in sorted(self._state.engines.items())
        }

    def _attested(self) -> dict[Digest, list[Room]]:
        """Where each version was seen, in a boot that is still the engine's."""
        found: dict[Digest, list[Room]] = {}
        for name, room in self._rooms.items():
            engine = self._state.engines[name]
            for version, slot in self._state.slots.get(name, {}).items():
                known = self._state.versions.get(version)
                if known is None or known.base != room.base or slot.boot != engine.boot:
                    continue
                if room.lora or engine.merged == version:
                    found.setdefault(version, []).append(room)
        return found

    def _targets(self) -> dict[str, Digest]:
        """Engines of merged tenants, down ones too."""
        owners: dict[tuple[str, Digest], list[str]] = {}
        for name, tenant in self._given.items():
            engine = self._state.engines.get(name)
            if engine is not None and self._state.tenants[tenant].isolation.level is Level.MERGED:
                owners.setdefault((tenant, engine.base), []).append(name)
        if not owners:
            return {}
        wanted = {want.version: want.base for want in self._wants}
        live: dict[tuple[str, Digest], dict[tuple[str, str], Digest]] = {owner: {} for owner in owners}
        for (tenant, *alias), shown in self._state.aliases.items():
            base = wanted.get(shown.version)
            if base is not None and (tenant, base) in live and not passed(shown.expires_at, self._now):
                live[tenant, base][alias[0], alias[1]] = shown.version
        return {
            name: version
            for owner, names in owners.items()
            for name, version in merged_with(names, live[owner]).items()
        }

    def _belongs(self, want: Want, room: Room) -> bool:
        if want.version in self._merged_on:
            return not room.lora and room.engine in self._merged_on[want.version]
        return room.lora and self._given.get(room.engine) == self._owner(want)

    def _owner(self, want: Want) -> str | None:
        """Of the engines on which it is a LoRA adapter among others."""
        return want.tenant.id if want.tenant.isolation.level is Level.DEDICATED else None

    def _homes(self, want: Want) -> list[Room]:
        """Where it was seen and belongs."""
        return [room for room in self._slots.get(want.version, ()) if self._belongs(want, room)]

    def _sizes(self, want: Want) -> tuple[Tier, ...]:
        """The rooms it may be placed in. What is served now and cannot go straight to where it belongs is
        taken by shared engines meanwhile; what is served nowhere waits for its own: isolation is a promise.
        """
        if not self._given or not own(want.tenant):
            return self._tier(want, None)
        moving = want.version in self._slots and not self._homes(want)
        if want.version in self._merged_on:
            return self._tier(want, None) if moving else ()
        mine = self._tier(want, self._owner(want))
        return mine if mine or not moving else self._tier(want, None)

    def _tier(self, want: Want, owner: str | None) -> tuple[Tier, ...]:
        key = want.base, owner, want.rank
        found = self._tiers.get(key)
        if found is None:
            rooms = (
                room
                for room in self._rooms.values()
                if room.base == want.base and self._given.get(room.engine) == owner
            )
            found = self._tiers[key] = tiers(rooms, want.rank)
        return found

    def _unfinished(self) -> set[str]:
        """One after the other: a slot on an engine that is about to go does not count for the next one."""
        kept: set[str] = set()
        going: set[str] = set()
        by_version = {want.version: want for want in self._wants}
        for name, room in self._rooms.items():
            if self._state.engines[name].merged == self._merged.get(name):
                continue
            needed = (
                by_version[version]
                for version, rooms in self._slots.items()
                if room in rooms and version in by_version
            )
            if any(self._needed(want, room, going) for want in needed):
                kept.add(name)
            else:
                going.add(name)
        return kept

    def _needed(self, want: Want, room: Room, going: set[str]) -> bool:
        others = (other for other in self._slots[want.version] if other is not room)
        if any(other.engine not in going for other in others):
            return False
        return self._possible(want, room)

    def _possible(self, want: Want, besides: Room) -> bool:
        """Whether any other engine may ever serve it, up or not."""
        return any(
            engine.base == want.base and self._given.get(name) in (None, want.tenant.id)
            for name, engine in self._state.engines.items()
            if name != besides.engine
        )

    def _merge(self) -> None:
        wanted = {want.version: want for want in self._wants if want.version in self._merged_on}
        for name, version in self._merged.items():
            if name in self._rooms and name not in self._kept:
                self._put(wanted[version], self._rooms[name])

    def _keep_until_home(self) -> None:
        """Slots on engines where a version does not belong, while it has none where it does."""
        if not self._given and all(room.lora for room in self._rooms.values()):
            return
        for want in self._wants:
            slots = self._slots.get(want.version, ())
            if not slots or any(self._belongs(want, room) for room in slots):
                continue
            allowed = {room.engine for tier in self._sizes(want) for room in tier.rooms}
            for room in slots:
                if room.engine in allowed or self._leaves(room):
                    continue
                if own(want.tenant) or self._possible(want, room):
                    self._put(want, room, leaving=True)

    def _leaves(self, room: Room) -> bool:
        """Whether it starts again with other weights now."""
        return room.engine not in self._kept and self._state.engines[room.engine].merged != self._merged.get(
            room.engine
        )

    def _place(self, level: list[Want]) -> None:
        most = max(tenant.isolation.replicas for tenant in self._state.tenants.values())
        for number in range(1, most + 1):
            if self._free <= 0:
                return
            missing = [
                want
                for want in level
                if want.tenant.isolation.replicas >= number
                and self._count.get(want.version, 0) < number
                and not (want.version in self._slots and self._stay(want))
            ]
            for want in missing:
                if self._free <= 0:
                    return
                self._move_in(want)

    def _stay(self, want: Want) -> bool:
        """One more of the engines where it was attested."""
        holders, sizes = self._slots[want.version], self._sizes(want)
        if len(sizes) == 1 and len(holders) == 1:
            return holders[0] in sizes[0].rooms and self._put(want, holders[0])
        for tier in sizes:
            for room in tier.preferred(want.version):
                if room in holders and self._put(want, room):
                    return True
        return False

    def _move_in(self, want: Want) -> None:
        for tier in self._sizes(want):
            for room in tier.preferred(want.version):
                if self._put(want, room):
                    return

    def _put(self, want: Want, room: Room, *, leaving: bool = False) -> bool:
        pinned = not want.unpinned and want.tenant.isolation.level is Level.PINNED
        if not room.takes(want.version, pinned=pinned):
            return False
        room.take(want.version, pinned=pinned)
        self._free -= 1
        found = Assigned(want.version, want.rank, want.why, pinned, leaving)
        self._placed[room.engine].append((want, found))
        if not leaving and self._merged.get(room.engine) != want.version:
            # Engines that are or will be merged with it do not count: until they are, others serve it.
            self._count[want.version] = self._count.get(want.version, 0) + 1
        return True


def _first(placed: tuple[Want, Assigned]) -> tuple[bool, int, Digest]:
    return placed[0][:3]
