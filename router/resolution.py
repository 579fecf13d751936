"""resolve: tenant, public model name and metadata headers -> one route, its version and its policy.

The tenant is part of every key that is looked up, so a foreign route cannot be reached by any spelling.
"""

from datetime import datetime
from typing import NamedTuple

from registry.assignment import assigned
from registry.clock import passed
from registry.digests import Digest
from registry.models import AliasState, Route
from registry.routing import choice as routing
from registry.routing.choice import Refusal
from router.errors import (
    AdapterNotReady,
    AliasExpired,
    DuplicateHeader,
    MetadataRequired,
    MetadataUnmatched,
    ModelNotFound,
    RouteAmbiguous,
    RouterError,
    RouteUnusable,
)
from router.headers import Headers
from router.places import Held
from router.policies import CompiledPolicy
from router.tables import Live, Principal, Tables

CONVERSATION = "x-conversation-id"


class Target(NamedTuple):
    """What the answer must come from, and what it must satisfy."""

    route: Route
    policy: CompiledPolicy
    live: Live
    shadows: tuple[Live, ...] = ()
    """Of the alias, those that some engine serves: they get copies and answer nobody."""


def choose(principal: Principal, model: str, headers: Headers, tables: Tables) -> Route:
    """The one route of this tenant that names all the metadata of the request (``registry.routing.choice``).

    Raises ModelNotFound, DuplicateHeader, MetadataUnmatched, MetadataRequired, RouteAmbiguous.
    """
    rules = tables.routes.get(principal.tenant, {}).get(model)
    if rules is None:
        raise ModelNotFound
    outcome = routing.choose(rules, headers.every)
    if outcome.rule is None:
        raise _refused(outcome)
    return outcome.rule


def unit_of(principal: Principal, headers: Headers, user: str | None) -> str:
    """Whose requests go to the same version of an alias with canaries: the conversation that the client
    names, else its user, else the key (rotated or not). Raises DuplicateHeader.

    Not the client's address: one address may be all of a company, or a new one with every request.
    """
    named = headers.every(CONVERSATION)
    if len(named) > 1:
        raise DuplicateHeader(f"the header {CONVERSATION} was sent more than once", param=CONVERSATION)
    # Marked by kind, so that a user named like a conversation is still somebody else.
    if named and named[0]:
        return f"conversation {named[0]}"
    return f"user {user}" if user else f"key {principal.line}"


def resolve(route: Route, tables: Tables, *, unit: str, now: datetime, began: int = 0) -> Target:
    """The policy of the route and the version behind its alias. ``began``: the epoch that the conversation is
    in (``router.epochs``); 0: none that counts.

    Raises RouteUnusable, AliasExpired, AdapterNotReady.
    """
    known: Target | None = tables.targets.get(id(route))
    if known is not None and known.route is route and not began:
        return known
    lazy = tables.policies.get(route.policy)
    # A route whose policy is missing or broken stays one: a less specific route must not take over.
    policy = lazy.compiled if lazy is not None and lazy.policy.tenant == route.tenant else None
    if policy is None:
        raise RouteUnusable
    alias = tables.state.aliases.get((route.tenant, route.adapter, route.alias))
    if alias is None:
        raise AdapterNotReady
    if alias.expires_at is not None and passed(alias.expires_at, now):
        raise AliasExpired
    if began and (kept := _kept(alias, tables, began, now)) is not None:
        shadows = tuple(shadow for shadow in _shadows(alias, tables) if shadow.version != kept.version)
        return Target(route, policy, kept, shadows)
    target = Target(route, policy, _live(alias, tables, unit), _shadows(alias, tables))
    if not alias.canaries and alias.expires_at is None:  # then it depends on the tables alone
        tables.targets[id(route)] = target
    return target


def _live(alias: AliasState, tables: Tables, unit: str) -> Live:
    """A canary that no engine serves (not loaded yet, revoked) gives way to the stable version, which is just
    as much the tenant's own; the stable version gives way to nothing. Raises AdapterNotReady."""
    version = assigned(alias, unit) if alias.canaries else alias.version
    held = _held(alias, version, tables)
    if held is None and version != alias.version:
        version = alias.version
        held = _held(alias, version, tables)
    if held is None:
        raise AdapterNotReady
    return Live(version, alias.epoch, held.engine_name, held.places, version != alias.version)


def _kept(alias: AliasState, tables: Tables, began: int, now: datetime) -> Live | None:
    """What a conversation began with: the former version, in the epoch in which it last was everybody's.

    One that began before the former version did began with another, which may even be the live one.
    """
    former = alias.former
    if former is None or not (former.since or 1) <= began <= former.epoch or passed(former.until, now):
        return None
    held = _held(alias, former.version, tables)
    return None if held is None else Live(former.version, former.epoch, held.engine_name, held.places)


def _shadows(alias: AliasState, tables: Tables) -> tuple[Live, ...]:
    held = [(version, _held(alias, version, tables)) for version in alias.shadows]
    return tuple(
        Live(version, alias.epoch, found.engine_name, found.places)
        for version, found in held
        if found is not None
    )


def _held(alias: AliasState, version: Digest, tables: Tables) -> Held | None:
    """Only what is of the alias's own tenant and adapter, whatever the alias says."""
    held = tables.places.get(version)
    if held is None or held.tenant != alias.tenant or held.adapter != alias.adapter:
        return None
    return held


def _refused(outcome: routing.Outcome[Route]) -> RouterError:
    names = " or ".join(outcome.headers)
    param = outcome.headers[0] if outcome.headers else None
    match outcome.refusal:
        case Refusal.REPEATED:
            return DuplicateHeader(f"the header {names} was sent more than once", param=param)
        case Refusal.UNKNOWN:
            return MetadataUnmatched(f"the value of the header {param} is not a declared one", param=param)
        case Refusal.UNMATCHED:
            return MetadataUnmatched(f"no route of this model matches the header {param}", param=param)
        case Refusal.REQUIRED:
            return MetadataRequired(f"every request needs the header {names}", param=param)
        case Refusal.MISSING:
            return MetadataRequired(f"this model has no default route; send {names}", param=param)
        case _:
            return RouteAmbiguous()
