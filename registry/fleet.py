"""Which versions belong on which engine: pure, so that nobody has to coordinate.

Every agent, the control plane and ``tenon fleet`` compute the same from the same feed. A version stays
where it was attested, unless that engine is much fuller than another; where it is new, rendezvous hashing
decides. One that has to leave an engine (which was given to somebody, or whose weights change, or which gives
it to another, or whose tenant got one of its own) stays until it is attested where it belongs:
docs/concepts/fleet.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from registry import turns
from registry.balance import Balance
from registry.digests import Digest
from registry.feed import State, uncollected
from registry.ground import Ground
from registry.homes import own
from registry.models import Level
from registry.rooms import Room
from registry.wants import ANSWERING, Why


class Assigned(
    NamedTuple
):  # a third of the time to make of a frozen dataclass, and there are 100,000 of them
    version: Digest
    rank: int
    why: Why
    pinned: bool = False
    """A device slot is kept free for it."""
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
    afresh: bool = False
    """Its boot holds what others had there, and it is needed by nobody as it is: it may start again."""


def assigned(state: State, now: datetime) -> dict[str, Share]:
    """The share of every engine that was ever announced; one that is down has nothing to serve."""
    with uncollected():
        return _Assignment(state, now).shares()


class _Assignment:
    """One computation. Works in rounds: of two equally important versions, both get a first engine before
    one gets a second, and who is attested somewhere keeps that before anybody is placed anew. Where names
    are short, tenants take turns (:mod:`registry.turns`)."""

    def __init__(self, state: State, now: datetime) -> None:
        ground = self._ground = Ground(state, now)
        self._wants = ground.wants
        replicas = {name: tenant.isolation.replicas for name, tenant in state.tenants.items()}
        self._replicas = [replicas[want.tenant.id] for want in self._wants]
        pinning = {name for name, tenant in state.tenants.items() if tenant.isolation.level is Level.PINNED}
        self._pins = [
            not want.unpinned and want.tenant.id in pinning and want.why in ANSWERING for want in self._wants
        ]
        self._plainly: dict[int, Assigned] = {}
        """What several engines are told of a version is the same."""
        self._count = [0] * len(self._wants)
        self._free = sum(room.free for room in ground.rooms.values())

    def shares(self) -> dict[str, Share]:
        ground = self._ground
        self._merge()
        self._keep_until_home()
        homes = self._homes()
        levels = [
            list(level)
            for _, level in groupby(range(len(self._wants)), key=lambda number: self._wants[number][:2])
        ]
        due = turns.due(ground, self._replicas, homes)
        first = turns.first(ground, homes)
        if first:
            self._place(
                first, homes, [1] * len(self._wants) if due is None else [min(1, each) for each in due]
            )
        for replicas in (self._replicas,) if due is None else (due, self._replicas):
            for level in levels:
                self._place(level, homes, replicas)
        self._balance()
        self._stand_in()
        return {
            name: Share(
                tuple(self._held(ground.rooms[name])) if engine.up else (),
                exclusive=ground.given.get(name),
                merged=engine.merged if name in ground.kept else ground.merged.get(name),
                afresh=engine.up and ground.rooms[name].stale and name not in ground.kept,
            )
            for name, engine in sorted(ground.state.engines.items())
        }

    def _held(self, room: Room) -> list[Assigned]:
        pinned, leaving, plainly = room.pinned, room.leaving, self._plainly
        found = []
        for number in sorted(room.held):
            if number in pinned or number in leaving:
                want = self._wants[number]
                found.append(Assigned(want.version, want.rank, want.why, number in pinned, number in leaving))
                continue
            made = plainly.get(number)
            if made is None:
                want = self._wants[number]
                made = plainly[number] = Assigned(want.version, want.rank, want.why)
            found.append(made)
        return found

    def _merge(self) -> None:
        ground = self._ground
        if not ground.merged:
            return
        numbers = {want.version: number for number, want in enumerate(self._wants)}
        for name, version in ground.merged.items():
            if name in ground.rooms and name not in ground.kept:
                self._put(numbers[version], ground.rooms[name], counts=False)

    def _keep_until_home(self) -> None:
        """Slots on engines where a version does not belong, while it has none where it does."""
        ground = self._ground
        if ground.plain:
            return
        for number, want in enumerate(self._wants):
            slots = ground.slots[number]
            if not slots or any(ground.belongs(want, room) for room in slots):
                continue
            allowed = {room.engine for tier in ground.sizes(number) for room in tier.rooms}
            for room in slots:
                if room.engine in allowed or ground.starts_again(room):
                    continue
                if own(want.tenant) or ground.possible(want, room):
                    self._leave(number, room)

    def _homes(self) -> list[list[Room]]:
        """Of the engines where each was attested, those that it keeps; the first one last. With more than it
        needs it goes from where it is in a slot for larger ones, and from the fullest."""
        ground, replicas = self._ground, self._replicas
        found: list[list[Room]] = []
        surplus: list[int] = []
        known: dict[tuple[int, Digest, int], list[Room]] = {}
        for number, holders in enumerate(ground.slots):
            if not holders:
                found.append([])
                continue
            want = self._wants[number]
            key = id(holders), want.base, want.rank
            homes = known.get(key) if ground.plain else None
            if homes is None:
                tiers = reversed(ground.sizes(number))
                homes = known[key] = [room for tier in tiers for room in holders if room in tier.members]
            found.append(homes.copy())
            if len(homes) > replicas[number]:
                surplus.append(number)
        if surplus:
            counts = dict.fromkeys(ground.rooms, 0)
            for number, homes in enumerate(found):
                if len(homes) <= replicas[number]:
                    for room in homes:
                        counts[room.engine] += 1
            for number in surplus:
                best = sorted(
                    found[number],
                    key=lambda room: (room.rank, (counts[room.engine] + 1) / room.weight, room.engine),
                )[: replicas[number]]
                for room in best:
                    counts[room.engine] += 1
                found[number] = best[::-1]
        return found

    def _place(self, level: list[int], homes: list[list[Room]], replicas: Sequence[int]) -> None:
        count = self._count
        for turn in range(1, max(replicas[number] for number in level) + 1):
            if self._free <= 0:
                return
            missing: list[int] = []
            for number in level:
                if count[number] >= turn or replicas[number] < turn:
                    continue
                kept = homes[number]
                while kept and not self._put(number, kept.pop()):
                    pass
                if count[number] < turn:
                    missing.append(number)
            for number in missing:
                if self._free <= 0:
                    return
                self._move_in(number)

    def _move_in(self, number: int) -> None:
        version = self._wants[number].version
        for tier in self._ground.sizes(number):
            if self._pins[number]:
                for room in tier.preferred(version):
                    if room.pins > 0 and self._put(number, room):
                        return
            for room in tier.preferred(version):
                if self._put(number, room):
                    return

    def _balance(self) -> None:
        ground = self._ground
        groups: dict[tuple[Digest, str | None], list[Room]] = {}
        for name, room in ground.rooms.items():
            if room.lora and not room.stale and name not in ground.kept and not ground.starts_again(room):
                groups.setdefault((room.base, ground.given.get(name)), []).append(room)
        balance = Balance(self._wants, ground.slots, self._move)
        for rooms in groups.values():
            if len(rooms) > 1:
                balance.rooms(rooms)

    def _move(self, number: int, giver: Room, taker: Room) -> bool:
        want = self._wants[number]
        if number in giver.pinned and taker.pins <= 0:
            return False
        if not self._ground.belongs(want, giver) or not self._put(number, taker, counts=False):
            return False
        giver.placed.remove(number)
        if number in giver.pinned:
            giver.pinned.discard(number)
            giver.pins += 1
        if taker in self._ground.slots[number]:
            giver.held.discard(number)
            giver.free += 1
        else:
            giver.leaving.add(number)
        return True

    def _stand_in(self) -> None:
        """An engine that is to hold what is too large for its boot starts afresh once others serve what it
        serves: what only it serves is given to one of them besides. Where that is too small as well, it is
        the one that starts afresh first: what it serves fits into this one."""
        ground = self._ground
        rooms = sorted(ground.rooms.values(), key=lambda room: (-room.fits, room.engine))
        for room in rooms:
            if room.fits >= room.rank or all(self._wants[each].rank <= room.fits for each in room.placed):
                continue
            for number in room.placed.copy():
                slots = ground.slots[number]
                if room in slots and not any(number in other.held for other in slots if other is not room):
                    self._put_elsewhere(number, room)

    def _put_elsewhere(self, number: int, room: Room) -> None:
        """Where it was seen already, or else on one more than are to hold it: those may never do."""
        slots = self._ground.slots[number]
        for tier in self._ground.sizes(number):
            order = tier.preferred(self._wants[number].version)
            for other in sorted(order, key=lambda other: other not in slots):
                if other is not room and self._put(number, other):
                    return

    def _put(self, number: int, room: Room, *, counts: bool = True) -> bool:
        if room.free <= 0 or number in room.held:
            return False
        room.free -= 1
        self._free -= 1
        room.held.add(number)
        room.placed.append(number)
        if self._pins[number] and room.pins > 0:
            room.pins -= 1
            room.pinned.add(number)
        # Engines that are or will be merged with it do not count: until they are, others serve it.
        self._count[number] += counts
        return True

    def _leave(self, number: int, room: Room) -> None:
        if room.free > 0 and number not in room.held:
            room.free -= 1
            self._free -= 1
            room.held.add(number)
            room.leaving.add(number)
