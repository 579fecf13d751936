"""Routing rules: published whole, and proved before they are in force."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from registry.canonical import Document
from registry.catalog.routes import RoutingMove
from registry.models import DeclaredHeader, Route, Routing
from registry.routing.proof import Proof
from server.api.access import PEOPLE, requires_of_tenant
from server.api.bodies import takes
from server.api.caller import Caller
from server.api.control import Control
from server.api.guarded import router
from server.api.pages import ENTRY, Page, Place, paged
from server.api.preconditions import etag, expected

_RULES = {
    "routes": [
        {
            "tenant": "bank_a",
            "name": "default",
            "model": "assistant",
            "adapter": "assistant",
            "policy": f"sha256:{'0' * 64}",
        }
    ]
}


class NewRouting(Document):
    routes: tuple[Route, ...]
    headers: tuple[DeclaredHeader, ...] | None = None
    """Null: derived from the conditions of the rules."""


def routes(control: Control) -> APIRouter:
    routing = router()
    people = requires_of_tenant(control, PEOPLE)

    @routing.get("/tenants/{tenant}/routing", dependencies=[people])
    def read_routing(tenant: str, response: Response) -> Routing:
        """The rules in force; revision 0 when nothing was published yet."""
        found = control.within(tenant).routing(tenant)
        response.headers.update(etag(found.revision))
        return found

    @routing.get("/tenants/{tenant}/routing/history", dependencies=[people])
    def read_routing_history(
        tenant: str, place: Annotated[Place, paged(control, behind=ENTRY)]
    ) -> Page[RoutingMove]:
        """Every publication with its author, oldest first."""
        after = int(place.after) if place.after else None
        found = control.within(tenant).routings(tenant, after=after, limit=place.ask)
        return place.page(found, lambda move: move.entry)

    @routing.put("/tenants/{tenant}/routing")
    def publish_routing(
        tenant: str,
        caller: Annotated[Caller, people],
        revision: Annotated[int | None, expected()],
        wanted: Annotated[NewRouting, takes(NewRouting, example=_RULES)],
        response: Response,
        dry_run: Annotated[bool, Query(description="Prove only, change nothing")] = False,
    ) -> Routing | Proof:
        """All rules at once; refused with a counterexample when a request could go astray.

        With `dry_run` the answer is the proof, whether it holds or not.
        """
        catalog = control.within(tenant)
        if dry_run:
            return catalog.prove_routing(tenant, routes=wanted.routes, headers=wanted.headers)
        found = catalog.publish_routing(
            tenant,
            routes=wanted.routes,
            headers=wanted.headers,
            expect_revision=revision,
            actor=caller.actor,
        )
        response.headers.update(etag(found.revision))
        return found

    return routing
