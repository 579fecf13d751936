"""Publish a tenant's rules as one numbered document, proved before it is in force."""

from collections.abc import Sequence
from dataclasses import dataclass

from registry.catalog import tenants
from registry.catalog.change import Change
from registry.catalog.projection import ROUTES_REPLACED, ROUTING_PUBLISHED
from registry.digests import Digest
from registry.errors import PolicyNotFound
from registry.models import AliasState, DeclaredHeader, Route, Routing, VersionState
from registry.names import AdapterName
from registry.routing.choice import derived
from registry.routing.errors import RouteRefused, RoutingChanged
from registry.routing.form import check_form
from registry.routing.proof import Finding, Proof
from registry.routing.prove import Known, prove
from registry.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class RoutingMove:
    """One publication, as the log has it."""

    entry: int
    at: str
    actor: str
    routing: Routing


@dataclass(frozen=True, slots=True)
class Draft:
    """Rules to be published, and all that a proof of them looks at."""

    now: Routing
    """In force when the draft was made."""
    wanted: Routing
    known: Known


def drafted(
    rows: Transaction,
    tenant: str,
    *,
    routes: Sequence[Route],
    headers: Sequence[DeclaredHeader] | None,
    expect_revision: int | None,
) -> Draft:
    """``headers`` None: those that the rules test. ``expect_revision``: the one that the caller saw, 0 before
    the first. The adapters need not exist yet: a tenant is set up before its first training.

    Raises TenantNotFound, RoutingChanged, RouteInvalid (with all faults), PolicyNotFound (also for another
    tenant's policy).
    """
    tenants.require(rows, tenant)
    now = rows.routings.get(tenant)
    if expect_revision is not None and expect_revision != now.revision:
        raise RoutingChanged(
            f"the routing of {tenant} is at revision {now.revision}, not {expect_revision}",
            revision=now.revision,
        )
    wanted = proposed(rows, tenant, routes=routes, headers=headers)
    for route in wanted.routes:
        policy = rows.policies.get(route.policy)
        if policy is None or policy.tenant != tenant:
            raise PolicyNotFound(f"route {route.name}: there is no policy {route.policy}")
    return Draft(now, wanted, _known(rows, wanted))


def check(draft: Draft) -> None:
    """Seconds for some hundred rules: never within a transaction that others wait for.

    Raises RouteRefused (with every finding and its counterexample).
    """
    refuse_unproved(prove([draft.wanted], draft.known))


def publish(change: Change, draft: Draft) -> Routing | None:
    """A checked draft, all rules at once; what is in force already is not published again.

    None, and nothing done, when what it was checked against is not so any more.
    """
    tenant = draft.wanted.tenant
    tenants.require(change.rows, tenant)
    if change.rows.routings.get(tenant) != draft.now or _known(change.rows, draft.wanted) != draft.known:
        return None
    if (draft.wanted.routes, draft.wanted.headers) == (draft.now.routes, draft.now.headers):
        return draft.now
    change.write(ROUTING_PUBLISHED, tenant, {"routing": draft.wanted.model_dump(mode="json")})
    return draft.wanted


def proposed(
    rows: Transaction, tenant: str, *, routes: Sequence[Route], headers: Sequence[DeclaredHeader] | None
) -> Routing:
    """The document that publishing these rules would make. Raises RouteInvalid, TenantNotFound."""
    tenants.require(rows, tenant)
    check_form(tenant, headers or (), routes)
    declared = headers or derived(routes)
    return Routing(
        tenant=tenant,
        revision=rows.routings.get(tenant).revision + 1,
        headers=tuple(
            header.model_copy(update={"values": tuple(sorted(header.values))})
            for header in sorted(declared, key=lambda header: header.name)
        ),
        routes=tuple(routes),
    )


def refuse_unproved(proof: Proof) -> None:
    """Raises RouteRefused when ``proof`` does not hold."""
    if not proof.holds:
        first, *others = (_spoken(finding) for finding in proof.errors)
        more = f", and {len(others) + proof.more} more" if others else ""
        raise RouteRefused(
            f"{proof.errors[0].why}{more}", faults=(first, *others), findings=proof.errors, more=proof.more
        )


def proof_of(
    rows: Transaction,
    tenant: str | None,
    *,
    routes: Sequence[Route] | None = None,
    headers: Sequence[DeclaredHeader] | None = None,
) -> Proof:
    """Of ``routes`` as if they were published, else of what is in force, of one tenant or of all."""
    if tenant is None:
        return prove(rows.routings.all(), _everything(rows))
    tenants.require(rows, tenant)
    if routes is not None:
        routing = proposed(rows, tenant, routes=routes, headers=headers)
    else:
        routing = rows.routings.get(tenant)
    return prove([routing], _known(rows, routing))


def history(rows: Transaction, tenant: str) -> tuple[RoutingMove, ...]:
    """Oldest first; of old logs too, where the headers are those that the rules test."""
    tenants.require(rows, tenant)
    moves: list[RoutingMove] = []
    entries = [*rows.log.about(ROUTES_REPLACED, tenant), *rows.log.about(ROUTING_PUBLISHED, tenant)]
    for entry in sorted(entries, key=lambda entry: entry.index):
        if entry.kind == ROUTING_PUBLISHED:
            routing = Routing.build(entry.body["routing"])
        else:
            routes = tuple(Route.build(route) for route in entry.body["routes"])
            routing = Routing(tenant=tenant, revision=len(moves) + 1, headers=derived(routes), routes=routes)
        moves.append(RoutingMove(entry.index, entry.at, entry.actor, routing))
    return tuple(moves)


def _known(rows: Transaction, routing: Routing) -> Known:
    """What one tenant's rules lead to."""
    aliases: dict[tuple[str, str, str], AliasState] = {}
    for name, alias in {(AdapterName(route.tenant, route.adapter), route.alias) for route in routing.routes}:
        state = rows.aliases.get(name, alias)
        if state is not None:
            aliases[name.tenant, name.adapter, alias] = state
    versions: dict[Digest, VersionState] = {}
    for state in aliases.values():
        for version in (state.version, *(canary.version for canary in state.canaries), *state.shadows):
            found = rows.versions.get(version)
            if found is not None:
                versions[version] = VersionState(
                    version=version,
                    tenant=found.name.tenant,
                    adapter=found.name.adapter,
                    base=found.manifest.base,
                    rank=found.manifest.lora.rank,
                    revoked=found.revoked,
                )
    policies = {}
    for digest in {route.policy for route in routing.routes}:
        policy = rows.policies.get(digest)
        if policy is not None:
            policies[digest] = policy.tenant
    return Known(
        tenants=frozenset({routing.tenant}),
        keys=rows.keys.of(routing.tenant),
        policies=policies,
        aliases=aliases,
        versions=versions,
        protections=rows.protections.of(routing.tenant),
    )


def _everything(rows: Transaction) -> Known:
    return Known(
        tenants=frozenset(tenant.id for tenant in rows.tenants.all()),
        keys=rows.keys.all(),
        policies={digest: policy.tenant for digest, policy in rows.policies.all().items()},
        aliases={(alias.tenant, alias.adapter, alias.alias): alias for alias in rows.aliases.all()},
        versions={state.version: state for state in rows.versions.states()},
        protections=rows.protections.all(),
    )


def _spoken(finding: Finding) -> str:
    if finding.headers is None:
        return finding.why
    sent = ", ".join(f"{name}: {value}" for name, value in finding.headers) or "no metadata"
    return f"{finding.why} (send {sent})"
