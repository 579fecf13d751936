"""Whether rules and declared headers are well formed, each by itself, and few enough to be proved."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from registry.models import DeclaredHeader, Route
from registry.routing.errors import RouteInvalid

MAX_ROUTES = 500
"""A tenant's; they are compared pair by pair, and every router holds all of them."""
MAX_CONDITIONS = 16
MAX_HEADERS = 32
"""A tenant's: every request is asked for each of them."""
MAX_VALUES = 1_000
"""Of one header."""
IDENTITY = "x-tenant-id"
"""Belongs to authentication: it must agree with the key and decides nothing else."""
_HEADER = re.compile(r"x-[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
_VALUE = re.compile(r"[!-~]([ -~]{0,254}[!-~])?", re.ASCII)
"""Visible ASCII without outer spaces: what arrives as it was sent, whatever proxies are in between."""


def check_form(tenant: str, headers: Sequence[DeclaredHeader], routes: Sequence[Route]) -> None:
    """Raises RouteInvalid with all faults. Beyond the bounds above nothing is proved, so it is refused."""
    if len(routes) > MAX_ROUTES:
        faults = [f"{len(routes)} routes, at most {MAX_ROUTES} are possible"]
    else:
        faults = [*_routes(tenant, routes), *_headers(headers)]
    if faults:
        raise RouteInvalid("; ".join(faults), faults=tuple(faults))


def _routes(tenant: str, routes: Sequence[Route]) -> Iterator[str]:
    for route in routes:
        if route.tenant != tenant:  # its name stays unsaid: it may be somebody else's
            yield f"route {route.name} is not of the tenant {tenant}"
        if len(route.when) > MAX_CONDITIONS:
            yield f"route {route.name} has more than {MAX_CONDITIONS} conditions"
        for header, value in sorted(route.when.items()):
            yield from (f"route {route.name}: {fault}" for fault in _name(header))
            yield from (f"route {route.name}: {fault}" for fault in _value(header, value))
    yield from (f"two routes are called {name}" for name in _twice(route.name for route in routes))
    tested = {header for route in routes for header in route.when}
    if len(tested) > MAX_HEADERS:
        yield f"the routes test {len(tested)} headers, at most {MAX_HEADERS} are possible"


def _headers(headers: Sequence[DeclaredHeader]) -> Iterator[str]:
    if len(headers) > MAX_HEADERS:
        yield f"{len(headers)} headers, at most {MAX_HEADERS} are possible"
        return
    yield from (f"{ascii(name)[:80]} is declared twice" for name in _twice(header.name for header in headers))
    for header in headers:
        yield from _name(header.name)
        if not 0 < len(header.values) <= MAX_VALUES:
            yield f"{ascii(header.name)[:80]} has {len(header.values)} values, 1 to {MAX_VALUES} are possible"
            continue
        if _twice(header.values):
            yield f"{ascii(header.name)[:80]} has the same value twice"
        for value in header.values:
            yield from _value(header.name, value)


def _name(header: str) -> Iterator[str]:
    if header == IDENTITY:
        yield f"{IDENTITY} says who calls and cannot choose a route"
    elif not _HEADER.fullmatch(header) or len(header) > 64:
        yield f"{ascii(header)[:80]} is no lower-case name like x-policy-version"


def _value(header: str, value: str) -> Iterator[str]:
    if not _VALUE.fullmatch(value):
        yield f"a value of {ascii(header)[:80]} is not 1 to 256 visible characters"


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
