"""Give a tenant more or less of the engines to itself; its API stays the same before, during and after."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from registry.catalog import tenants
from registry.catalog.change import Change
from registry.catalog.errors import EngineGiven, EngineNeeded, EngineNotFound, SlotsTaken
from registry.catalog.projection import TENANT_ISOLATED
from registry.digests import Digest
from registry.errors import InvalidInput
from registry.feed import Snapshot, State, uncollected
from registry.fleet import assigned
from registry.homes import Homes, given, merged_with, own
from registry.models import EngineState, Isolation, Level, Tenant
from registry.names import Name
from registry.store.transaction import Transaction
from registry.wants import ANSWERING, Want, wants


def isolate(change: Change, tenant: str, isolation: Isolation, *, force: bool, now: datetime) -> Isolation:
    """What holds now: of a tenant that is to have an engine and was given none, with one chosen.

    Raises TenantNotFound; InvalidInput; EngineNotFound; EngineGiven; EngineNeeded for the last engine that
    others need and SlotsTaken where none is left to keep free, unless ``force``.
    """
    isolation = isolation.model_copy(update={"unclean": ()})
    known = tenants.get(change.rows, tenant)
    state = state_of(change.rows)
    needed = wants(state, now).values()
    mine = {want.base for want in needed if want.tenant.id == tenant}
    if isolation.level in (Level.DEDICATED, Level.MERGED):
        engines = isolation.engines or tuple(_chosen(state, tenant, mine, needed))
        isolation = isolation.model_copy(update={"engines": engines})
        _check(state, known, isolation, mine)
        if not force:
            _spare(state, known, isolation, needed)
        isolation = isolation.model_copy(update={"unclean": _unclean(state, known, isolation)})
    elif isolation.engines:
        raise InvalidInput(f"a tenant on the level {isolation.level} has no engines of its own")
    if known.isolation == isolation:
        return isolation
    changed = known.model_copy(update={"isolation": isolation})
    if isolation.level is Level.PINNED and not force:
        _check_pins(state, changed, now)
    body = {
        "tenant": tenant,
        "isolation": isolation.model_dump(mode="json"),
        "ended": _ended(state, changed),
    }
    change.write(TENANT_ISOLATED, tenant, body)
    return isolation


def slot_rules(rows: Transaction, version: Digest, tenant: str, base: Digest) -> Homes | None:
    """None while no engine belongs to anybody: then every slot may be anywhere."""
    isolated = rows.tenants.isolated()
    owner = rows.tenants.get(tenant)
    if not isolated or owner is None:
        return None
    merged: Iterable[str] = ()
    if owner.isolation.level is Level.MERGED:
        homes = [rows.engines.get(name) for name in owner.isolation.engines]
        names = [home.engine for home in homes if home is not None and home.base == base]
        live = {
            (alias.adapter, alias.alias): alias.version
            for alias in rows.aliases.shown(tenant)
            if (known := rows.versions.get(alias.version)) is not None and known.manifest.base == base
        }
        merged = (name for name, target in merged_with(names, live).items() if target == version)
    return Homes(version, owner, given(isolated), frozenset(merged))


def state_of(rows: Transaction) -> State:
    """Only what decides where versions belong."""
    feed = rows.feed
    with uncollected():
        return State.of(
            Snapshot.model_construct(
                size=0,
                root=Digest.of(b""),
                tenants=feed.tenants(),
                bases=feed.bases(),
                aliases=feed.aliases(),
                preparations=feed.preparations(),
                versions=feed.versions(),
                engines=feed.engines(),
                slots=feed.slots(),
            )
        )


def _chosen(state: State, tenant: str, bases: Collection[Digest], needed: Iterable[Want]) -> Iterable[str]:
    """One of each base that the tenant has versions of: the one that serves fewest of others."""
    if not bases:
        raise InvalidInput(
            f"{tenant} has no version that is served: nothing says which base", hint="name the engine"
        )
    others = {want.version for want in needed if want.tenant.id != tenant}
    taken = given(state.tenants.values())
    for base in sorted(bases):
        free = [
            engine
            for engine in state.engines.values()
            if engine.base == base and engine.up and taken.get(engine.engine) in (None, tenant)
        ]
        if not free:
            raise EngineNotFound("no engine of the tenant's base is up and free")
        yield min(
            free,
            key=lambda engine: (
                taken.get(engine.engine) is None,
                len(others.intersection(state.slots.get(engine.engine, {}))),
                engine.engine,
            ),
        ).engine


def _check(state: State, tenant: Tenant, isolation: Isolation, bases: Collection[Digest]) -> None:
    taken = given(each for each in state.tenants.values() if each.id != tenant.id)
    for name in isolation.engines:
        engine = state.engines.get(name)
        if engine is None:
            raise EngineNotFound(f"no engine {name[:80]} was announced")
        if name in taken:
            raise EngineGiven(f"the engine {name} belongs to the tenant {taken[name]}")
        if bases and engine.base not in bases:
            raise InvalidInput(f"the engine {name} is of a base that {tenant.id} has no version of")


def _spare(state: State, tenant: Tenant, isolation: Isolation, needed: Iterable[Want]) -> None:
    """Whether what is left serves all others, and the move itself."""
    taken = given(each for each in state.tenants.values() if each.id != tenant.id)
    left = Counter(
        engine.base
        for name, engine in state.engines.items()
        if engine.up and name not in taken and name not in isolation.engines
    )
    bases = {state.engines[name].base for name in isolation.engines}
    others = {want.tenant.id for want in needed if want.base in bases and not own(want.tenant)} - {tenant.id}
    for base in bases:
        if left[base] == 0 and others:
            raise EngineNeeded(
                f"it is the last shared engine of its base, and {len(others)} other tenants need it"
            )
        merging = isolation.level is Level.MERGED and any(want.tenant.id == tenant.id for want in needed)
        if left[base] == 0 and merging and not _merged(state, isolation.engines):
            raise EngineNeeded("nobody could serve the tenant while its engine loads merged weights")


def _unclean(state: State, tenant: Tenant, isolation: Isolation) -> tuple[str, ...]:
    """Boots that may hold what others had there. Not where nobody else could serve the tenant while its
    engine starts again, nor where the weights change: that takes a fresh boot anyway."""
    if isolation.level is not Level.DEDICATED:
        return ()
    taken = given(state.tenants.values())
    spare = {
        engine.base
        for name, engine in state.engines.items()
        if engine.up and name not in taken and name not in isolation.engines
    }
    others = {version.base for version in state.versions.values() if version.tenant != tenant.id}
    before = tenant.isolation
    found = []
    for engine in (state.engines[name] for name in isolation.engines):
        # One that was given to be merged, and is not yet, still holds what it held.
        if before.level is Level.DEDICATED and engine.engine in before.engines:
            if engine.boot in before.unclean:
                found.append(engine.boot)
        elif engine.up and engine.merged is None and engine.base in spare & others:
            found.append(engine.boot)
    return tuple(sorted(found))


def _check_pins(state: State, changed: Tenant, now: datetime) -> None:
    after = replace(state, tenants={**state.tenants, changed.id: changed})
    if short := _unpinned(after, now) - _unpinned(state, now):
        raise SlotsTaken(f"{len(short)} versions would have no device slot of their own on any engine")


def _unpinned(state: State, now: datetime) -> set[Digest]:
    """Of pinned tenants: versions that are placed and answer somebody, and no slot is kept for."""
    placed: dict[Digest, bool] = {}
    for share in assigned(state, now).values():
        for each in share.versions:
            tenant = state.tenants[state.versions[each.version].tenant]
            if each.why in ANSWERING and tenant.isolation.level is Level.PINNED:
                placed[each.version] = placed.get(each.version, False) or each.pinned
    return {version for version, pinned in placed.items() if not pinned}


def _merged(state: State, engines: Iterable[Name]) -> bool:
    return all(state.engines[name].merged is not None for name in engines)


def _ended(state: State, changed: Tenant) -> list[list[str]]:
    """[engine, version] of the slots that end at once: their versions are where they belong already."""
    known: Mapping[str, Tenant] = {**state.tenants, changed.id: changed}
    owners = given(known.values())
    holders: dict[Digest, list[EngineState]] = {}
    for name, slots in state.slots.items():
        for version in slots:
            holders.setdefault(version, []).append(state.engines[name])
    targets = _targets(state, changed)
    found = []
    for version, engines in sorted(holders.items()):
        owner = known.get(state.versions[version].tenant)
        if owner is None or (owner.isolation.level is Level.MERGED and owner.id != changed.id):
            continue  # Its own move is its own affair.
        merged = frozenset(name for name, target in targets.items() if target == version)
        rules = Homes(version, owner, owners, merged)
        found += [[engine, str(version)] for engine in sorted(rules.ended(engines))]
    return found


def _targets(state: State, tenant: Tenant) -> dict[str, Digest]:
    found: dict[str, Digest] = {}
    if tenant.isolation.level is not Level.MERGED:
        return found
    for base in {state.engines[name].base for name in tenant.isolation.engines}:
        names = [name for name in tenant.isolation.engines if state.engines[name].base == base]
        live = {
            (adapter, alias): shown.version
            for (owner, adapter, alias), shown in state.aliases.items()
            if owner == tenant.id and state.versions[shown.version].base == base
        }
        found |= merged_with(names, live)
    return found
