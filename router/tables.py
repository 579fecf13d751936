"""What a request looks up: indexes over the registry's state, built once and then changed delta by delta.

A request takes the tables once and keeps them, so it sees one state from its first check to its record. They
never change after: a change makes new tables that share every index it did not touch. Whether the parts fit
together (an alias and its version, a slot and the boot of its engine) is checked where they are looked up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from registry.digests import Digest
from registry.feed import Delta, Snapshot, State, uncollected
from registry.models import Key, Policy, Role, Route, Routing
from registry.routing.choice import Rules, compiled, derived
from router import faults, pins, places
from router.faults import Holders, Subject
from router.pins import Pins
from router.places import Place, Places
from router.policies import LazyPolicy


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling."""

    tenant: str
    key: str
    role: Role
    line: str = ""
    """The same for a key and all that it was rotated to."""


class Live(NamedTuple):  # made for every request, and three times as fast to make as a frozen dataclass
    """What a request to an alias is answered by: a version of that same tenant and adapter."""

    version: Digest
    epoch: int
    engine_name: str
    places: tuple[Place, ...]
    canary: bool = False
    """Whether it is a canary of the alias rather than its stable version."""


@dataclass(frozen=True, slots=True)
class Tables:
    state: State
    holders: Holders
    routes: Mapping[str, Mapping[str, Rules[Route]]]
    """Tenant -> public model -> rules."""
    policies: Mapping[Digest, LazyPolicy]
    places: Places
    """Attested places of usable versions."""
    troubles: Mapping[Subject, str]
    pins: Pins = pins.NONE
    """Versions with device slots of their own."""
    callers: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    targets: dict[int, Any] = field(default_factory=dict, compare=False, repr=False)
    """``router.auth`` and ``router.resolution`` keep in these two what they found out from the tables; gone
    with them, so never stale."""

    @property
    def size(self) -> int:
        return self.state.size

    @property
    def root(self) -> Digest:
        return self.state.position.root

    @property
    def attested(self) -> int:
        return sum(len(held.places) for held in self.places.values())

    @property
    def faults(self) -> tuple[str, ...]:
        return tuple(self.troubles[subject] for subject in sorted(self.troubles))

    def models(self, tenant: str) -> list[str]:
        """Public model names, sorted."""
        return sorted(self.routes.get(tenant, ()))

    def key(self, secret_hash: Digest) -> Key | None:
        """The one key that the secret opens, revoked or not; none when it would open two."""
        holders = self.holders.get(secret_hash, ())
        return self.state.keys[holders[0]] if len(holders) == 1 else None


def compile_tables(snapshot: Snapshot, previous: Tables | None = None) -> Tables:
    """Everything from the start; policies of ``previous`` are used again (same digest, same document)."""
    with uncollected():
        return _compiled(snapshot, previous)


def _compiled(snapshot: Snapshot, previous: Tables | None) -> Tables:
    state = State.of(snapshot)
    holders: dict[Digest, tuple[str, ...]] = {}
    for key in snapshot.keys:
        holders[key.secret_hash] = tuple(sorted((*holders.get(key.secret_hash, ()), key.id)))
    everywhere = places.everywhere(state)
    return Tables(
        state=state,
        holders=holders,
        routes={routing.tenant: rules_of(routing) for routing in snapshot.routings},
        policies=_policies({} if previous is None else previous.policies, snapshot.policies),
        places=everywhere,
        troubles=faults.found(state, holders, faults.everything(state)),
        pins=pins.everywhere(state, everywhere),
    )


def advance(tables: Tables, delta: Delta) -> Tables:
    """``tables`` after a change: what compiling the whole new state would give.

    Costs a shallow copy of each index that the change touches, whatever else there is. Raises FeedMismatch.
    """
    before, state = tables.state, tables.state.after(delta)
    holders = _holders(tables.holders, before, delta)
    # What was wrong before is looked at again: what it lacked may have come.
    suspects = {*tables.troubles, *faults.touched(delta)}
    held = places.after(tables.places, before, state, delta)
    return Tables(
        state=state,
        holders=holders,
        routes={**tables.routes, **{routing.tenant: rules_of(routing) for routing in delta.routings}}
        if delta.routings
        else tables.routes,
        policies=_policies(tables.policies, delta.policies, keep=True),
        places=held,
        troubles=faults.found(state, holders, sorted(suspects)),
        pins=pins.after(tables.pins, before, state, held, delta),
    )


def rules_of(routing: Routing) -> dict[str, Rules[Route]]:
    """Public model -> rules. A route that names another tenant is left out whoever wrote it there."""
    mine = [route for route in routing.routes if route.tenant == routing.tenant]
    # Routings of before headers were declared declare what their rules test.
    headers = routing.headers or derived(mine)
    by_model: dict[str, list[Route]] = {}
    for route in mine:
        by_model.setdefault(route.model, []).append(route)
    return {
        model: compiled([(route.when, route) for route in routes], headers)
        for model, routes in by_model.items()
    }


def _policies(
    known: Mapping[Digest, LazyPolicy], policies: Mapping[Digest, Policy], *, keep: bool = False
) -> Mapping[Digest, LazyPolicy]:
    if keep and not policies:
        return known
    found = dict(known) if keep else {}
    for digest, policy in policies.items():
        old = known.get(digest)
        found[digest] = old if old is not None and old.policy == policy else LazyPolicy(digest, policy)
    return found


def _holders(known: Holders, before: State, delta: Delta) -> Holders:
    """Most changes of keys (a revocation) leave their secrets as they were, and the index too."""
    found: dict[Digest, tuple[str, ...]] | None = None
    for key in delta.keys:
        old = before.keys.get(key.id)
        if old is not None and old.secret_hash == key.secret_hash:
            continue
        found = dict(known) if found is None else found
        if old is not None:
            rest = tuple(each for each in found.pop(old.secret_hash) if each != key.id)
            if rest:
                found[old.secret_hash] = rest
        found[key.secret_hash] = tuple(sorted((*found.get(key.secret_hash, ()), key.id)))
    return known if found is None else found
