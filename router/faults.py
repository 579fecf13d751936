"""What does not fit together in the registry's state. It is never served and never repaired by guessing;
naming it is for the operator."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from registry.digests import Digest
from registry.feed import AliasKey, Delta, State, alias_key
from registry.models import AliasState, Routing
from router.places import usable

Subject: TypeAlias = tuple[str, Any]
"""(noun, its key in the state)."""
Holders: TypeAlias = Mapping[Digest, tuple[str, ...]]
"""Hash of a secret -> ids of the keys that it would open."""


def everything(state: State) -> Iterator[Subject]:
    for noun in ("keys", "routings", "aliases"):
        yield from ((noun, key) for key in getattr(state, noun))
    yield from (("engines", engine) for engine in {*state.engines, *state.slots})


def touched(delta: Delta) -> Iterator[Subject]:
    yield from (("keys", key.id) for key in delta.keys)
    yield from (("routings", routing.tenant) for routing in delta.routings)
    yield from (("aliases", alias_key(alias)) for alias in delta.aliases)
    yield from (("engines", engine) for engine in {*delta.slots, *(each.engine for each in delta.engines)})


def found(state: State, holders: Holders, subjects: Iterable[Subject]) -> dict[Subject, str]:
    told = ((subject, _fault(state, holders, subject)) for subject in subjects)
    return {subject: fault for subject, fault in told if fault is not None}


def _fault(state: State, holders: Holders, subject: Subject) -> str | None:
    noun, key = subject
    match noun:
        case "keys":
            return _of_key(state, holders, key)
        case "routings":
            return _of_routing(state, state.routings[key])
        case "aliases":
            return _of_alias(state, key)
        case _:
            return _of_engine(state, key)


def _of_key(state: State, holders: Holders, identity: str) -> str | None:
    key = state.keys[identity]
    if len(holders.get(key.secret_hash, ())) > 1:
        return f"two keys share a secret: {key.id}"
    if key.tenant is not None and key.tenant not in state.tenants:
        return f"the key {key.id} belongs to no known tenant"
    return None


def _of_routing(state: State, routing: Routing) -> str | None:
    if routing.tenant not in state.tenants:
        return f"the routing of {routing.tenant} belongs to no known tenant"
    for route in routing.routes:
        if route.tenant != routing.tenant:
            return f"the route {routing.tenant}/{route.name} is another tenant's"
        policy = state.policies.get(route.policy)
        if policy is None or policy.tenant != routing.tenant:
            return f"the route {routing.tenant}/{route.name} has no policy that can be applied"
    return None


def _of_alias(state: State, key: AliasKey) -> str | None:
    alias = state.aliases[key]
    for version in (alias.version, *(canary.version for canary in alias.canaries), *alias.shadows):
        if not owns(state, alias, version):
            return f"the alias {'/'.join(key[:2])}:{key[2]} points outside its adapter"
    return None


def owns(state: State, alias: AliasState, version: Digest) -> bool:
    """Whether ``version`` is one of the alias's own tenant and adapter."""
    found = state.versions.get(version)
    return found is not None and (found.tenant, found.adapter) == (alias.tenant, alias.adapter)


def _of_engine(state: State, name: str) -> str | None:
    home, slots = state.engines.get(name), state.slots.get(name, {})
    if home is None:
        return f"slots of an engine that nobody announced: {name}"
    if not slots or not home.up:
        return None
    if not usable(home):
        return f"the engine {name} has no usable address"
    for slot in slots.values():
        version = state.versions.get(slot.version)
        if version is not None and version.base != home.base:
            return f"the engine {name} attests a version of another base"
    return None
