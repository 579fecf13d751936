"""What is known before anybody is placed: who is wanted and where it was seen, which engines are whose, and
which of them have to start again first."""

from collections.abc import Sequence
from datetime import datetime

from registry.clock import passed
from registry.digests import Digest
from registry.feed import State
from registry.homes import given, merged_with, own
from registry.models import Level
from registry.rooms import Room, Tier, tiers
from registry.wants import ANSWERING, Want, ordered, wants

_NOWHERE: Sequence[Room] = ()


class Ground:
    def __init__(self, state: State, now: datetime) -> None:
        self.state = state
        self._now = now
        self.given = given(state.tenants.values())
        stale = {boot for tenant in state.tenants.values() for boot in tenant.isolation.unclean}
        self.rooms = {
            name: Room(engine, stale=engine.boot in stale and name in self.given)
            for name, engine in sorted(state.engines.items())
            if engine.up
        }
        self.wants = ordered(wants(state, now).values())
        """A version's number is its place in this list."""
        self._shared: dict[Sequence[Room], Sequence[Room]] = {}
        self.slots = self._attested()
        """Where each was seen, in a boot that is still the engine's."""
        self.merged = self._targets()
        """Engine -> the version that it is to be merged with."""
        self.merged_on: dict[Digest, list[str]] = {}
        for engine, version in self.merged.items():
            self.merged_on.setdefault(version, []).append(engine)
        self._tiers: dict[tuple[Digest, str | None, int, bool], tuple[Tier, ...]] = {}
        self.plain = not self.given and all(room.lora for room in self.rooms.values())
        """Whether every version may be on every engine."""
        self.kept = self._unfinished()
        """Engines that have to start again, and are still needed as they are."""

    def belongs(self, want: Want, room: Room) -> bool:
        if self.plain:
            return True
        if want.version in self.merged_on:
            return not room.lora and room.engine in self.merged_on[want.version]
        return room.lora and not room.stale and self.given.get(room.engine) == _owner(want)

    def sizes(self, number: int) -> tuple[Tier, ...]:
        """The rooms it may be placed in. What is served now and cannot go straight to where it belongs is
        taken by shared engines meanwhile; what is served nowhere waits for its own: isolation is a promise.
        """
        want = self.wants[number]
        if not self.given or not own(want.tenant):
            return self._tier(want, None)
        holders = self.slots[number]
        moving = bool(holders) and not any(self.belongs(want, room) for room in holders)
        if want.version in self.merged_on:
            return self._tier(want, None) if moving else ()
        owner = _owner(want)
        mine = self._tier(want, owner)
        if mine or owner is None:
            return mine
        # Served by nobody: its own engine takes it as it is, before it starts again.
        return self._tier(want, None) if moving else self._tier(want, owner, stale=True)

    def starts_again(self, room: Room) -> bool:
        """Whether that is so, and nobody needs it as it is."""
        return room.engine not in self.kept and self._must_start(room)

    def possible(self, want: Want, besides: Room) -> bool:
        """Whether any other engine may ever serve it, up or not."""
        return any(
            engine.base == want.base and self.given.get(name) in (None, want.tenant.id)
            for name, engine in self.state.engines.items()
            if name != besides.engine
        )

    def _attested(self) -> list[Sequence[Room]]:
        bases = [want.base for want in self.wants]
        find = {want.version: number for number, want in enumerate(self.wants)}.get
        found: list[Sequence[Room]] = [_NOWHERE] * len(bases)
        for name, room in self.rooms.items():
            engine = self.state.engines[name]
            boot, base, merged = engine.boot, engine.base, engine.merged
            with_it: dict[int, Sequence[Room]] = {}
            # Few rooms make few lists of them: each is made once, and what follows from it found once.
            for version, slot in self.state.slots.get(name, {}).items():
                number = find(version)
                if number is None or slot.boot != boot or bases[number] != base:
                    continue
                if merged is None or merged == version:
                    before = found[number]
                    after = with_it.get(id(before))
                    if after is None:
                        after = with_it[id(before)] = self._shared.setdefault(
                            (*before, room), (*before, room)
                        )
                    found[number] = after
        return found

    def _targets(self) -> dict[str, Digest]:
        """Engines of merged tenants, down ones too."""
        owners: dict[tuple[str, Digest], list[str]] = {}
        for name, tenant in self.given.items():
            engine = self.state.engines.get(name)
            if engine is not None and self.state.tenants[tenant].isolation.level is Level.MERGED:
                owners.setdefault((tenant, engine.base), []).append(name)
        if not owners:
            return {}
        wanted = {want.version: want.base for want in self.wants}
        live: dict[tuple[str, Digest], dict[tuple[str, str], Digest]] = {owner: {} for owner in owners}
        for (tenant, *alias), shown in self.state.aliases.items():
            base = wanted.get(shown.version)
            if base is not None and (tenant, base) in live and not passed(shown.expires_at, self._now):
                live[tenant, base][alias[0], alias[1]] = shown.version
        return {
            name: version
            for owner, names in owners.items()
            for name, version in merged_with(names, live[owner]).items()
        }

    def _tier(self, want: Want, owner: str | None, *, stale: bool = False) -> tuple[Tier, ...]:
        key = want.base, owner, want.rank, stale
        found = self._tiers.get(key)
        if found is None:
            rooms = (
                room
                for room in self.rooms.values()
                if room.base == want.base
                and self.given.get(room.engine) == owner
                and (stale or not room.stale)
            )
            found = self._tiers[key] = tiers(rooms, want.rank)
        return found

    def _must_start(self, room: Room) -> bool:
        return self._other_weights(room) or room.stale

    def _other_weights(self, room: Room) -> bool:
        return self.state.engines[room.engine].merged != self.merged.get(room.engine)

    def _unfinished(self) -> set[str]:
        """One after the other: a slot on an engine that is about to go does not count for the next one."""
        kept: set[str] = set()
        going: set[str] = set()
        for name, room in self.rooms.items():
            if not self._must_start(room):
                continue
            if any(
                self._needed(want, room, holders, going)
                for want, holders in zip(self.wants, self.slots, strict=True)
                if room in holders
            ):
                kept.add(name)
            else:
                going.add(name)
        return kept

    def _needed(self, want: Want, room: Room, holders: Sequence[Room], going: set[str]) -> bool:
        if any(other is not room and other.engine not in going for other in holders):
            return False
        if not self._other_weights(room):
            return True
        # For weights of its own a tenant was promised to wait; for empty memory nobody is left without.
        return self.possible(want, room) and not self._gives_way(want, room, going)

    def _gives_way(self, want: Want, room: Room, going: set[str]) -> bool:
        """Whether it answers nobody by itself, no engine that is up could take it, and what the engine is to
        be merged with is served nowhere: somebody asks for that now."""
        target = self.merged.get(room.engine)
        if target is None or want.why in ANSWERING or self._tier(want, None):
            return False
        if any(self.merged.get(name) == target for name in going):
            return False
        return not any(
            holders for other, holders in zip(self.wants, self.slots, strict=True) if other.version == target
        )


def _owner(want: Want) -> str | None:
    """Of the engines on which it is a LoRA adapter among others."""
    return want.tenant.id if want.tenant.isolation.level is Level.DEDICATED else None
