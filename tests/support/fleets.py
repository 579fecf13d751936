"""Whole states of a registry with a fleet, and a small world that lives by what is assigned."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from registry.digests import Digest
from registry.feed import Position, State
from registry.fleet import Share, assigned
from registry.homes import Homes, given, merged_with
from registry.models import (
    AliasState,
    EngineState,
    Isolation,
    Level,
    Slot,
    Tenant,
    VersionState,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE = Digest.of(b"base")
OTHER_BASE = Digest.of(b"other base")


def version(text: str) -> Digest:
    return Digest.of(text.encode())


def engine(
    name: str,
    *,
    names: int | None = 32,
    max_loras: int = 8,
    max_rank: int | None = None,
    slot_rank: int | None = None,
    base: Digest = BASE,
    up: bool = True,
    boot: int = 1,
    merged: Digest | None = None,
) -> EngineState:
    return EngineState(
        engine=name,
        boot=f"{name}-boot-{boot:04}",
        url="http://127.0.0.1:1",
        base=base,
        engine_version="0.32.0",
        dtype="float32",
        max_loras=max_loras,
        up=up,
        names=names,
        max_rank=max_rank,
        slot_rank=slot_rank,
        merged=merged,
    )


def tenant(name: str, level: Level = Level.SHARED, *engines: str, replicas: int = 2) -> Tenant:
    isolation = Isolation(level=level, engines=engines, replicas=replicas)
    return Tenant(id=name, display_name=name, isolation=isolation)


def published(text: str, owner: str, *, rank: int = 8, base: Digest = BASE) -> VersionState:
    return VersionState(version=version(text), tenant=owner, adapter=text, base=base, rank=rank)


def live(text: str, owner: str) -> AliasState:
    return AliasState(tenant=owner, adapter=text, alias="live", version=version(text), epoch=1)


def slot(home: EngineState, held: Digest) -> Slot:
    return Slot(engine=home.engine, boot=home.boot, version=held, attestation=Digest.of(b"seen"))


def state(
    *,
    engines: Iterable[EngineState],
    tenants: Iterable[Tenant],
    versions: Iterable[VersionState],
    aliases: Iterable[AliasState] | None = None,
    slots: Mapping[str, Iterable[Digest]] | None = None,
) -> State:
    """``aliases``: without any, each version is the live one of an adapter of its own."""
    known = {each.engine: each for each in engines}
    published_ones = {each.version: each for each in versions}
    if aliases is None:
        aliases = [
            AliasState(tenant=each.tenant, adapter=each.adapter, alias="live", version=each.version, epoch=1)
            for each in published_ones.values()
        ]
    return State(
        position=Position(1, Digest.of(b"root")),
        tenants={each.id: each for each in tenants},
        keys={},
        bases={},
        policies={},
        routings={},
        aliases={(each.tenant, each.adapter, each.alias): each for each in aliases},
        versions=published_ones,
        engines=known,
        slots={
            name: {held: slot(known[name], held) for held in versions_held}
            for name, versions_held in (slots or {}).items()
            if versions_held
        },
    )


@dataclass
class World:
    """Agents that do what is assigned to them, one step at a time and in any order, and a registry that
    applies its rules to what they attest."""

    state: State
    chance: random.Random
    boots: int = 1
    pending: dict[str, EngineState] = field(default_factory=dict)
    """Engines that start again, and as what."""
    loaded: dict[str, set[Digest]] = field(default_factory=dict)
    """What each boot ever loaded: vLLM keeps it, whoever is served or not."""

    def __post_init__(self) -> None:
        for name, slots in self.state.slots.items():
            self.loaded.setdefault(name, set()).update(slots)

    def shares(self) -> dict[str, Share]:
        return assigned(self.state, NOW)

    def steps(self) -> list[tuple[str, Digest | None]]:
        """What some agent could do next: attest a version, or end a boot (None), or come up again."""
        found: list[tuple[str, Digest | None]] = [(name, None) for name in self.pending]
        for name, share in self.shares().items():
            home = self.state.engines[name]
            if not home.up:
                continue
            if share.merged != home.merged or share.afresh:
                found.append((name, None))
                continue
            held, loaded = self.state.slots.get(name, {}), self.loaded.get(name, set())
            missing = [each.version for each in share.versions if each.version not in held]
            if too_large := [version for version in missing if not self._fits(home, version)]:
                missing = [version for version in missing if version not in too_large]
                if self._may_grow(name, share):
                    found.append((name, None))
            room = len(loaded) < (home.names or home.max_loras)
            found += [(name, version) for version in missing if room or version in loaded]
            if not room and not loaded.issuperset(missing) and self._may_end(name, share):
                found.append((name, None))
        return found

    def _may_end(self, name: str, share: Share) -> bool:
        """Whether a fresh boot would have more room, and others serve already what they are to serve."""
        if self.loaded[name] <= {each.version for each in share.versions}:
            return False
        others = [each for other, each in self.shares().items() if other != name]
        expected = {each.version for other in others for each in other.versions}
        return all(
            len(self.holders(version)) > 1
            for version in self.state.slots.get(name, {})
            if version in expected
        )

    def _fits(self, home: EngineState, held: Digest) -> bool:
        return home.slot_rank is None or self.state.versions[held].rank <= home.slot_rank

    def _may_grow(self, name: str, share: Share) -> bool:
        """Whether no engine is away that would come back, and others serve what it is to serve."""
        kept = {each.version for each in share.versions}.intersection(self.state.slots.get(name, {}))
        return not self.pending and all(len(self.holders(version)) > 1 for version in kept)

    def step(self) -> bool:
        """False when nothing is left to do."""
        steps = self.steps()
        if not steps:
            return False
        name, wanted = self.chance.choice(steps)
        if wanted is not None:
            self.attest(name, wanted)
        elif name in self.pending:
            self._announce(self.pending.pop(name))
        else:
            target = self.shares()[name].merged
            self.boots += 1
            home = self.state.engines[name]
            self.pending[name] = home.model_copy(
                update={"boot": f"{name}-boot-{self.boots:04}", "merged": target, "slot_rank": None}
            )
            self._announce(home.model_copy(update={"up": False}))
        return True

    def settle(self) -> None:
        while self.step():
            pass

    def change(self, changed: Tenant) -> None:
        before, isolation = self.state.tenants[changed.id].isolation, changed.isolation
        if isolation.level is Level.DEDICATED:  # registry.catalog.isolation
            boots = {name: self.state.engines[name].boot for name in isolation.engines}
            unclean = tuple(
                boot
                for name, boot in boots.items()
                if before.level is not Level.DEDICATED or name not in before.engines or boot in before.unclean
            )
            isolation = isolation.model_copy(update={"unclean": unclean})
            changed = changed.model_copy(update={"isolation": isolation})
        self.state = replace(self.state, tenants={**self.state.tenants, changed.id: changed})
        for held in {each for slots in self.state.slots.values() for each in slots}:
            self._end(held)

    def attest(self, name: str, held: Digest) -> None:
        home = self.state.engines[name]
        holders = self.holders(held)
        if home in holders or not self._homes(held).admits(home, holders):
            return
        assert self._fits(home, held), "its slots are too small"
        loaded = self.loaded.setdefault(name, set())
        loaded.add(held)
        assert len(loaded) <= (home.names or home.max_loras), "vLLM would evict one of them"
        slots = {**self.state.slots.get(name, {}), held: slot(home, held)}
        self.state = replace(self.state, slots={**self.state.slots, name: slots})
        self._end(held)
        self._withdraw()

    def start_again(self, name: str) -> None:
        """One boot ends: down, and up when its turn comes."""
        self.boots += 1
        home = self.state.engines[name]
        self.pending[name] = home.model_copy(update={"boot": f"{name}-boot-{self.boots:04}"})
        self._announce(home.model_copy(update={"up": False}))

    def _withdraw(self) -> None:
        """What others are to serve and do, and nobody wants there, ends (server.engines.residency)."""
        shares = self.shares()
        for name, slots in list(self.state.slots.items()):
            kept = {each.version for each in shares[name].versions}
            expected = {
                each.version for other, share in shares.items() if other != name for each in share.versions
            }
            left = {
                held: found
                for held, found in slots.items()
                if held in kept or held not in expected or len(self.holders(held)) < 2
            }
            changed = {**self.state.slots, name: left}
            self.state = replace(self.state, slots={each: held for each, held in changed.items() if held})

    def holders(self, held: Digest) -> list[EngineState]:
        return [self.state.engines[name] for name, slots in self.state.slots.items() if held in slots]

    def _end(self, held: Digest) -> None:
        gone = self._homes(held).ended(self.holders(held))
        kept = {
            name: {each: found for each, found in slots.items() if each != held or name not in gone}
            for name, slots in self.state.slots.items()
        }
        self.state = replace(self.state, slots={name: slots for name, slots in kept.items() if slots})

    def _homes(self, held: Digest) -> Homes:
        known = self.state.versions[held]
        owner = self.state.tenants[known.tenant]
        targets: dict[str, Digest] = {}
        if owner.isolation.level is Level.MERGED:
            live = {
                key[1:]: alias.version
                for key, alias in self.state.aliases.items()
                if key[0] == owner.id and self.state.versions[alias.version].base == known.base
            }
            homes = [self.state.engines[name] for name in owner.isolation.engines]
            targets = merged_with([home.engine for home in homes if home.base == known.base], live)
        merged = frozenset(name for name, target in targets.items() if target == held)
        return Homes(held, owner, given(self.state.tenants.values()), merged)

    def _announce(self, changed: EngineState) -> None:
        slots = {name: held for name, held in self.state.slots.items() if name != changed.engine}
        self.loaded.pop(changed.engine, None)
        engines = {**self.state.engines, changed.engine: changed}
        self.state = replace(self.state, engines=engines, slots=slots)
