"""Routes, from afar: published whole, proved by the registry before they are in force."""

from collections.abc import Sequence

from registry.catalog.remote.part import Part
from registry.catalog.remote.wire import read
from registry.models import DeclaredHeader, Route, Routing


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
        """See :meth:`registry.catalog.local.LocalCatalog.publish_routing`."""
        body = {
            "routes": [route.model_dump(mode="json") for route in routes],
            "headers": None if headers is None else [header.model_dump(mode="json") for header in headers],
        }
        matched = {} if expect_revision is None else {"If-Match": f'"{expect_revision}"'}
        answer = self._wire.call("PUT", self._of(tenant, "routing"), json=body, headers=matched)
        return read(Routing, answer.json())

    def routing(self, tenant: str) -> Routing:
        """Revision 0 when nothing was published. Raises TenantNotFound."""
        return read(Routing, self._wire.get(self._of(tenant, "routing")))
