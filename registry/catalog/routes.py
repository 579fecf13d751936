"""Replace a tenant's routes, all or none."""

import re
from collections.abc import Iterator, Sequence
from itertools import combinations

from registry.catalog import tenants
from registry.catalog.change import Change
from registry.catalog.errors import RouteInvalid
from registry.catalog.projection import ROUTES_REPLACED
from registry.errors import PolicyNotFound
from registry.models import Route

MAX_ROUTES = 500
"""A tenant's; they are compared pair by pair, and every router holds all of them."""
MAX_CONDITIONS = 16
_HEADER = re.compile(r"x-[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
_VALUE = re.compile(r"[!-~]([ -~]{0,254}[!-~])?", re.ASCII)
"""Visible ASCII without outer spaces: what arrives as it was sent, whatever proxies are in between."""
IDENTITY = "x-tenant-id"
"""Belongs to authentication: it must agree with the key and decides nothing else."""


def replace(change: Change, tenant: str, routes: Sequence[Route]) -> None:
    """Raises TenantNotFound, PolicyNotFound (also for another tenant's policy), RouteInvalid with all faults.

    The adapters need not exist yet: a tenant is set up before its first training. They are always the
    tenant's own, because a route can name no other.
    """
    tenants.require(change.rows, tenant)
    if faults := list(_faults(tenant, routes)):
        raise RouteInvalid("; ".join(faults), faults=tuple(faults))
    for route in routes:
        policy = change.rows.policies.get(route.policy)
        if policy is None or policy.tenant != tenant:
            raise PolicyNotFound(f"route {route.name}: there is no policy {route.policy}")
    if tuple(routes) != change.rows.routes.of(tenant):
        change.write(ROUTES_REPLACED, tenant, {"routes": [route.model_dump(mode="json") for route in routes]})


def _faults(tenant: str, routes: Sequence[Route]) -> Iterator[str]:
    if len(routes) > MAX_ROUTES:
        yield f"{len(routes)} routes, at most {MAX_ROUTES} are possible"
        return
    for route in routes:
        if route.tenant != tenant:  # its name stays unsaid: it may be somebody else's
            yield f"route {route.name} is not of the tenant {tenant}"
        if len(route.when) > MAX_CONDITIONS:
            yield f"route {route.name} has more than {MAX_CONDITIONS} conditions"
        for header, value in sorted(route.when.items()):
            if header == IDENTITY:
                yield f"route {route.name}: {IDENTITY} says who calls and cannot choose a route"
            elif not _HEADER.fullmatch(header) or len(header) > 64:
                yield f"route {route.name}: {header[:64]!r} is no lower-case name like x-policy-version"
            if not _VALUE.fullmatch(value):
                yield f"route {route.name}: the value of {header[:64]!r} must be 1 to 256 visible characters"
    for one, other in combinations(routes, 2):
        if one.name == other.name:
            yield f"two routes are called {one.name}"
        elif _ambiguous(one, other):
            yield f"{one.name} and {other.name} can match the same request for {one.model} equally well"


def _ambiguous(one: Route, other: Route) -> bool:
    """Whether some request matches both, and neither is more specific (has more conditions)."""
    if one.model != other.model or len(one.when) != len(other.when):
        return False
    return all(other.when.get(header, value) == value for header, value in one.when.items())
