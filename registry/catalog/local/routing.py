"""Rules that lead a tenant's requests to its aliases."""

from collections.abc import Sequence

from registry.catalog import routes as routing
from registry.catalog import tenants
from registry.catalog.local.part import Part
from registry.catalog.routes import RoutingMove
from registry.models import DeclaredHeader, Route, Routing
from registry.routing.errors import RoutingChanged
from registry.routing.proof import Proof

_PROOFS = 3
"""Attempts to prove rules before something that they lead to changes."""


class Routes(Part):
    def publish_routing(
        self,
        tenant: str,
        *,
        routes: Sequence[Route],
        headers: Sequence[DeclaredHeader] | None = None,
        expect_revision: int | None = None,
        actor: str,
    ) -> Routing:
        """All rules at once or none, and only rules that are proved.

        Raises what :func:`registry.catalog.routes.drafted` and :func:`~registry.catalog.routes.check` raise.
        """
        for _ in range(_PROOFS):
            with self._database.read() as rows:
                draft = routing.drafted(
                    rows, tenant, routes=routes, headers=headers, expect_revision=expect_revision
                )
            routing.check(draft)
            with self._change_by(actor) as change:
                published = routing.publish(change, draft)
            if published is not None:
                return published
        raise RoutingChanged(f"what the rules of {tenant} lead to changes faster than they can be proved")

    def routing(self, tenant: str) -> Routing:
        """Revision 0 when nothing was published. Raises TenantNotFound."""
        with self._database.read() as rows:
            tenants.require(rows, tenant)
            return rows.routings.get(tenant)

    def routings(
        self, tenant: str, *, after: int | None = None, limit: int | None = None
    ) -> tuple[RoutingMove, ...]:
        """All that were published, oldest first; ``after``: the entry of one. Raises TenantNotFound."""
        with self._database.read() as rows:
            return routing.history(rows, tenant, after=after, limit=limit)

    def prove_routing(
        self,
        tenant: str | None = None,
        *,
        routes: Sequence[Route] | None = None,
        headers: Sequence[DeclaredHeader] | None = None,
    ) -> Proof:
        """Of ``routes`` as if they were published, else of what is in force; of all when no tenant is named.

        Changes nothing. Raises TenantNotFound, RouteInvalid.
        """
        with self._database.read() as rows:
            return routing.proof_of(rows, tenant, routes=routes, headers=headers)
