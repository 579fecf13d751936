"""Routes, from afar: published whole, proved by the registry before they are in force."""

from collections.abc import Sequence
from typing import Any

from registry.catalog.remote.pages import listed
from registry.catalog.remote.part import Part
from registry.catalog.remote.wire import read
from registry.catalog.routes import RoutingMove
from registry.errors import InvalidInput
from registry.models import DeclaredHeader, Route, Routing
from registry.routing.proof import Proof


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
        """See :meth:`registry.catalog.local.catalog.LocalCatalog.publish_routing`."""
        body = _body(routes, headers)
        matched = {} if expect_revision is None else {"If-Match": f'"{expect_revision}"'}
        answer = self._wire.call("PUT", self._of(tenant, "routing"), json=body, headers=matched)
        return read(Routing, answer.json())

    def routing(self, tenant: str) -> Routing:
        """Revision 0 when nothing was published. Raises TenantNotFound."""
        return read(Routing, self._wire.get(self._of(tenant, "routing")))

    def routings(
        self, tenant: str, *, after: int | None = None, limit: int | None = None
    ) -> tuple[RoutingMove, ...]:
        """All that were published, oldest first; ``after``: the entry of one. Raises TenantNotFound."""
        at = self._of(tenant, "routing", "history")
        return listed(self._wire, at, RoutingMove, after=after, limit=limit)

    def prove_routing(
        self,
        tenant: str | None = None,
        *,
        routes: Sequence[Route] | None = None,
        headers: Sequence[DeclaredHeader] | None = None,
    ) -> Proof:
        """Of ``routes`` as if they were published, else of what is in force. Raises TenantNotFound."""
        if tenant is None:
            raise InvalidInput("a registry behind a URL proves one tenant at a time", hint="name a tenant")
        if routes is None:
            now = self.routing(tenant)
            routes, headers = now.routes, now.headers or None
        body = _body(routes, headers)
        answer = self._wire.call("PUT", self._of(tenant, "routing"), query={"dry_run": "true"}, json=body)
        return read(Proof, answer.json())


def _body(routes: Sequence[Route], headers: Sequence[DeclaredHeader] | None) -> dict[str, Any]:
    return {
        "routes": [route.model_dump(mode="json") for route in routes],
        "headers": None if headers is None else [header.model_dump(mode="json") for header in headers],
    }
