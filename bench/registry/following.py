"""What a router has of the feed: its tables, one change of them, and a look into them."""

import random
from datetime import UTC, datetime
from typing import Any

from bench.registry import population
from bench.registry.timing import Spread, seconds, spread
from registry.digests import Digest
from registry.feed import Delta, Snapshot, parse
from router.auth import authenticate
from router.headers import Headers
from router.resolution import choose, resolve, unit_of
from router.tables import Tables, advance, compile_tables

_NOW = datetime(2026, 6, 1, tzinfo=UTC)
_LOOKS = 20_000


def compiled(body: bytes) -> tuple[float, float, Tables]:
    """(seconds to parse, seconds to compile, tables) of a whole snapshot."""
    parsing, news = seconds(lambda: parse(body))
    assert isinstance(news, Snapshot)
    compiling, tables = seconds(lambda: compile_tables(news))
    return parsing, compiling, tables


def changes(tables: Tables) -> dict[str, Spread]:
    """Milliseconds that one change of each kind takes, from its delta to the new tables."""
    state = tables.state
    alias = next(iter(state.aliases.values()))
    version = state.versions[alias.version]
    tenant = state.tenants[alias.tenant]
    engine = next(iter(state.engines.values()))
    small: dict[str, dict[str, Any]] = {
        "key revoked": {"keys": (next(iter(state.keys.values())).model_copy(update={"revoked": True}),)},
        "tenant suspended": {"tenants": (tenant.model_copy(update={"suspended": True}),)},
        "alias moved": {"aliases": (alias.model_copy(update={"epoch": alias.epoch + 1}),)},
        "routing published": {"routings": (state.routings[alias.tenant],)},
        "version pushed": {"versions": (version.model_copy(update={"version": Digest.of(b"new")}),)},
        "version revoked": {"versions": (version.model_copy(update={"revoked": True}),)},
        "engine attested": {
            "engines": (engine,),
            "slots": {engine.engine: tuple(state.slots[engine.engine].values())},
        },
    }
    found = {}
    for name, change in small.items():
        delta = Delta(
            after=state.size,
            follows=state.position.root,
            size=state.size + 1,
            root=Digest.of(b"next"),
            **change,
        )
        found[name] = spread(lambda _, delta=delta: advance(tables, delta), 50, scale=1e3)  # type: ignore[misc]
    return found


def looks(tables: Tables, size: population.Size, times: int = _LOOKS) -> dict[str, Spread]:
    """Microseconds of a request's way from its headers to its version, for tenants at random.

    Policies are compiled before: the first request of a tenant pays 1 ms for that, once.
    """
    served = min(size.tenants, size.engines * size.slots_each)
    chosen = random.Random(0)
    tenants = [chosen.randrange(served) for _ in range(times)]
    sent = {tenant: _headers(tenant) for tenant in set(tenants)}
    principals = {tenant: authenticate(headers, tables, _NOW) for tenant, headers in sent.items()}

    def look(number: int) -> None:
        tenant = tenants[number]
        principal, headers = principals[tenant], sent[tenant]
        route = choose(principal, "assistant", headers, tables)
        resolve(route, tables, unit=unit_of(principal, headers, None), now=_NOW)

    def whole(number: int) -> None:
        authenticate(sent[tenants[number]], tables, _NOW)
        look(number)

    for number in range(times):
        look(number)
    return {
        "resolve": spread(look, times, scale=1e6),
        "authenticate and resolve": spread(whole, times, scale=1e6),
    }


def _headers(tenant: int) -> Headers:
    secret = population.key_of(tenant)[1]
    version = (b"x-policy-version", b"v2" if tenant % 2 else b"v1")
    return Headers([(b"authorization", f"Bearer {secret}".encode()), *([version] if tenant % 2 else [])])
