"""What a request looks up, compiled once per change of the registry's state and never changed after.

A request takes the tables once and keeps them, so it sees one state from its first check to its record.
Whatever does not fit together (an alias that points to another tenant's version, a slot of an earlier boot)
is left out and named in ``faults``; nothing is ever repaired by guessing.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator, SchemaError
from referencing.jsonschema import EMPTY_REGISTRY

from registry import canonical
from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.models import AliasState, EngineState, Policy, Role, Route, Snapshot, VersionState
from registry.names import engine_name


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling."""

    tenant: str
    key: str
    role: Role


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    digest: Digest
    policy: Policy
    schema_bytes: bytes | None
    """Canonical JSON of the schema, to compare with one that a client sends."""
    validator: Draft202012Validator | None
    response_format: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    route: Route
    when: tuple[tuple[str, str], ...]
    policy: CompiledPolicy | None
    """None: missing or broken. The route stays, so that a less specific one does not take over."""


@dataclass(frozen=True, slots=True)
class Place:
    """An engine that was seen to behave as a version."""

    engine: str
    boot: str
    url: str
    attestation: Digest


@dataclass(frozen=True, slots=True)
class Live:
    """Where an alias points, checked to be a version of that same tenant and adapter."""

    version: Digest
    epoch: int
    engine_name: str
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Tables:
    size: int
    root: Digest
    principals: Mapping[Digest, Principal]
    routes: Mapping[tuple[str, str], tuple[CompiledRoute, ...]]
    """(tenant, public model) -> routes."""
    live: Mapping[tuple[str, str, str], Live]
    """(tenant, adapter, alias) -> version and places."""
    models: Mapping[str, tuple[str, ...]]
    """Tenant -> its public model names, sorted."""
    policies: Mapping[Digest, CompiledPolicy]
    attested: int
    """Attested places of usable versions."""
    faults: tuple[str, ...] = field(default=())


def compile_tables(snapshot: Snapshot, previous: Tables | None = None) -> Tables:
    """``snapshot`` as lookup tables; policies compiled for ``previous`` are used again (same digest)."""
    faults: list[str] = []
    tenants = {tenant.id for tenant in snapshot.tenants}
    policies = _policies(snapshot, previous, faults)
    places = _places(snapshot, faults)
    routes = _routes(snapshot, tenants, policies, faults)
    models: dict[str, list[str]] = defaultdict(list)
    for tenant, model in sorted(routes):
        models[tenant].append(model)
    return Tables(
        size=snapshot.size,
        root=snapshot.root,
        principals=_principals(snapshot, tenants, faults),
        routes=routes,
        live=_live(snapshot, places, faults),
        models={tenant: tuple(names) for tenant, names in models.items()},
        policies=policies,
        attested=sum(len(found) for found in places.values()),
        faults=tuple(faults),
    )


def _principals(snapshot: Snapshot, tenants: set[str], faults: list[str]) -> dict[Digest, Principal]:
    found: dict[Digest, Principal] = {}
    twice: set[Digest] = set()
    for key in snapshot.keys:
        if key.secret_hash in found:
            twice.add(key.secret_hash)
            faults.append(f"two keys share a secret: {key.id}")
        elif key.tenant not in tenants:
            faults.append(f"the key {key.id} belongs to no known tenant")
        elif not key.revoked:
            found[key.secret_hash] = Principal(key.tenant, key.id, key.role)
    revoked = {key.secret_hash for key in snapshot.keys if key.revoked}
    return {digest: who for digest, who in found.items() if digest not in twice and digest not in revoked}


def _policies(snapshot: Snapshot, previous: Tables | None, faults: list[str]) -> dict[Digest, CompiledPolicy]:
    known = previous.policies if previous is not None else {}
    found: dict[Digest, CompiledPolicy] = {}
    for digest, policy in snapshot.policies.items():
        if digest in known:
            found[digest] = known[digest]
            continue
        try:
            found[digest] = compile_policy(digest, policy)
        except (SchemaError, InvalidDocument, RecursionError):
            faults.append(f"policy {digest.short} cannot be applied")
    return found


def compile_policy(digest: Digest, policy: Policy) -> CompiledPolicy:
    """Raises SchemaError for a schema that is none, InvalidDocument when ``digest`` is not the policy's."""
    if policy.identity() != digest:
        raise InvalidDocument("the policy's digest does not match its content")
    schema = policy.answer_schema()
    if schema is None:
        return CompiledPolicy(digest, policy, None, None, None)
    Draft202012Validator.check_schema(schema)
    # An explicit registry: the default one fetches remote $refs over the network while validating.
    validator = Draft202012Validator(
        schema,
        registry=EMPTY_REGISTRY,
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )
    response_format = {
        "type": "json_schema",
        "json_schema": {"name": policy.name, "schema": schema, "strict": True},
    }
    return CompiledPolicy(digest, policy, canonical.encode(schema), validator, response_format)


def _routes(
    snapshot: Snapshot,
    tenants: set[str],
    policies: Mapping[Digest, CompiledPolicy],
    faults: list[str],
) -> dict[tuple[str, str], tuple[CompiledRoute, ...]]:
    found: dict[tuple[str, str], list[CompiledRoute]] = defaultdict(list)
    for route in snapshot.routes:
        if route.tenant not in tenants:
            faults.append(f"the route {route.name} belongs to no known tenant")
            continue
        policy = policies.get(route.policy)
        if policy is None or policy.policy.tenant != route.tenant:
            faults.append(f"the route {route.tenant}/{route.name} has no policy that can be applied")
            policy = None
        when = tuple(sorted((name.lower(), value) for name, value in route.when.items()))
        found[route.tenant, route.model].append(CompiledRoute(route, when, policy))
    return {key: tuple(routes) for key, routes in found.items()}


def _places(snapshot: Snapshot, faults: list[str]) -> dict[Digest, tuple[Place, ...]]:
    """Attested places per version: engine up, same boot as attested, same base, version not revoked."""
    versions: dict[Digest, VersionState] = {state.version: state for state in snapshot.versions}
    engines: dict[str, EngineState] = {}
    for engine in snapshot.engines:
        if engine.engine in engines:
            faults.append(f"the engine {engine.engine} is listed twice")
        engines[engine.engine] = engine
    found: dict[Digest, dict[str, Place]] = defaultdict(dict)
    for slot in snapshot.slots:
        version, home = versions.get(slot.version), engines.get(slot.engine)
        if version is None or home is None or version.revoked or not home.up or home.boot != slot.boot:
            continue
        if home.base != version.base:
            faults.append(f"the engine {home.engine} attests a version of another base")
            continue
        if not home.url.startswith(("http://", "https://")):
            faults.append(f"the engine {home.engine} has no usable address")
            continue
        found[slot.version][home.engine] = Place(home.engine, home.boot, home.url, slot.attestation)
    return {version: tuple(places[name] for name in sorted(places)) for version, places in found.items()}


def _live(
    snapshot: Snapshot, places: Mapping[Digest, tuple[Place, ...]], faults: list[str]
) -> dict[tuple[str, str, str], Live]:
    versions = {state.version: state for state in snapshot.versions}
    found: dict[tuple[str, str, str], Live] = {}
    for alias in snapshot.aliases:
        version = versions.get(alias.version)
        if version is None or (version.tenant, version.adapter) != (alias.tenant, alias.adapter):
            faults.append(f"the alias {_spell(alias)} points outside its adapter")
            continue
        key = (alias.tenant, alias.adapter, alias.alias)
        if key in found:
            faults.append(f"the alias {_spell(alias)} is listed twice")
        found[key] = Live(
            alias.version, alias.epoch, engine_name(alias.version), places.get(alias.version, ())
        )
    return found


def _spell(alias: AliasState) -> str:
    return f"{alias.tenant}/{alias.adapter}:{alias.alias}"
