"""resolve: tenant, public model name and metadata headers -> one route, its version and its policy.

The tenant is part of every key that is looked up, so a foreign route cannot be reached by any spelling.
"""

from dataclasses import dataclass

from registry.models import Route
from router.errors import (
    AdapterNotReady,
    DuplicateHeader,
    MetadataRequired,
    MetadataUnmatched,
    ModelNotFound,
    RouteAmbiguous,
    RouteUnusable,
)
from router.headers import Headers
from router.tables import CompiledPolicy, CompiledRoute, Live, Principal, Tables


@dataclass(frozen=True, slots=True)
class Target:
    """What the answer must come from, and what it must satisfy."""

    route: Route
    policy: CompiledPolicy
    live: Live


def choose(principal: Principal, model: str, headers: Headers, tables: Tables) -> CompiledRoute:
    """The most specific matching route of this tenant.

    A header that some route of this model declares, and that no matching route knows the value of, refuses
    the request: an unknown policy version must not fall back to the default one. Raises ModelNotFound,
    DuplicateHeader, MetadataUnmatched, MetadataRequired, RouteAmbiguous.
    """
    routes = tables.routes.get((principal.tenant, model))
    if not routes:
        raise ModelNotFound
    declared = sorted({name for route in routes for name, _ in route.when})
    sent: dict[str, str] = {}
    for name in declared:
        values = headers.every(name)
        if len(values) > 1:
            raise DuplicateHeader(f"the header {name} was sent more than once", param=name)
        if values:
            sent[name] = values[0]
    matching = [route for route in routes if all(sent.get(name) == value for name, value in route.when)]
    recognised = {name for route in matching for name, _ in route.when}
    for name in sent:
        if name not in recognised:
            raise MetadataUnmatched(f"no route of this model matches the header {name}", param=name)
    if not matching:
        raise MetadataRequired(
            f"this model has no default route; send {' or '.join(declared)}", param=declared[0]
        )
    most = max(len(route.when) for route in matching)
    best = [route for route in matching if len(route.when) == most]
    if len(best) > 1:
        raise RouteAmbiguous
    return best[0]


def resolve(chosen: CompiledRoute, tables: Tables) -> Target:
    """The version behind the route's alias. Raises RouteUnusable, AdapterNotReady."""
    if chosen.policy is None:
        raise RouteUnusable
    route = chosen.route
    live = tables.live.get((route.tenant, route.adapter, route.alias))
    if live is None or not live.places:
        raise AdapterNotReady
    return Target(route, chosen.policy, live)
