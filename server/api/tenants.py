"""Tenants: made, suspended and limited by the platform; read by themselves."""

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field

from registry.canonical import Document
from registry.digests import Digest
from registry.errors import InvalidInput
from registry.models import Isolation, Level, Quota, Tenant
from registry.names import Name
from server.api.access import PEOPLE, requires, requires_of_tenant
from server.api.bodies import takes
from server.api.caller import Caller, Who
from server.api.control import Control
from server.api.guarded import router
from server.api.pages import ID, Page, Place, paged
from server.api.preconditions import etag_of, expected_document


class TenantChange(Document):
    """One change at a time: ``display_name``, ``suspended`` (with a reason when true) or ``quota``."""

    display_name: str | None = Field(default=None, min_length=1, max_length=200)
    suspended: bool | None = None
    reason: str | None = Field(default=None, min_length=1, max_length=500)
    quota: Quota | None = None


class IsolationWish(Document):
    level: Level
    engines: tuple[Name, ...] = Field(default=(), max_length=64)
    replicas: int = Field(default=2, ge=1, le=64)
    force: bool = False
    """Also take the last engine that others need: they are not served until there is another."""


def routes(control: Control) -> APIRouter:
    tenants = router()
    admin = requires(control, {Who.PLATFORM_ADMIN})

    @tenants.post("/tenants", status_code=201)
    def create_tenant(
        caller: Annotated[Caller, admin],
        tenant: Annotated[Tenant, takes(Tenant, example={"id": "bank_a", "display_name": "Bank A"})],
        response: Response,
    ) -> Tenant:
        """A new tenant, without keys."""
        control.catalog.create_tenant(tenant, actor=caller.actor)
        response.headers["Location"] = f"/api/v1/tenants/{tenant.id}"
        return tenant

    @tenants.get("/tenants", dependencies=[admin])
    def list_tenants(place: Annotated[Place, paged(control, behind=ID)]) -> Page[Tenant]:
        """All tenants, by id."""
        found = control.catalog.tenants(after=place.after, limit=place.ask)
        return place.page(found, lambda tenant: tenant.id)

    @tenants.get("/tenants/{tenant}")
    def read_tenant(
        tenant: str, caller: Annotated[Caller, requires_of_tenant(control, PEOPLE)], response: Response
    ) -> Tenant:
        """One tenant: what it may use, whether it is served, and how much of an engine it has to itself."""
        found = _as_seen_by(caller, control.within(tenant).tenant(tenant))
        response.headers.update(etag_of(found))
        return found

    @tenants.patch("/tenants/{tenant}")
    def change_tenant(
        tenant: str,
        caller: Annotated[Caller, requires_of_tenant(control, {Who.PLATFORM_ADMIN})],
        seen: Annotated[Digest | None, expected_document()],
        change: Annotated[TenantChange, takes(TenantChange, example={"suspended": True, "reason": "unpaid"})],
        response: Response,
    ) -> Tenant:
        """Suspend or resume a tenant, or set its quota. Its keys end with the suspension, within 2 s."""
        catalog = control.within(tenant)
        given = [
            value for value in (change.display_name, change.suspended, change.quota) if value is not None
        ]
        if len(given) != 1:
            raise InvalidInput("change one thing at a time: each is one entry of the log")
        if (change.reason is None) == (change.suspended is True):
            raise InvalidInput("a suspension needs a reason, and nothing else has one")
        if change.quota is not None:
            catalog.set_quota(tenant, change.quota, actor=caller.actor, expect=seen)
        elif change.display_name is not None:
            catalog.rename_tenant(tenant, change.display_name, actor=caller.actor, expect=seen)
        elif change.suspended:
            catalog.suspend_tenant(tenant, reason=change.reason or "", actor=caller.actor, expect=seen)
        else:
            catalog.resume_tenant(tenant, actor=caller.actor, expect=seen)
        changed = catalog.tenant(tenant)
        response.headers.update(etag_of(changed))
        return changed

    @tenants.put("/tenants/{tenant}/isolation")
    def isolate_tenant(
        tenant: str,
        caller: Annotated[Caller, requires_of_tenant(control, {Who.PLATFORM_ADMIN})],
        seen: Annotated[Digest | None, expected_document()],
        wish: Annotated[IsolationWish, takes(IsolationWish, example={"level": "dedicated"})],
    ) -> Isolation:
        """Say how much of an engine a tenant has to itself. It moves there without a gap; the API that it
        uses stays the same. Without engines, the level ``dedicated`` or ``merged`` takes the one that serves
        fewest others."""
        # Of all tenants: whether an engine is free, and who else needs it.
        isolation = Isolation.build(wish.model_dump(mode="json", exclude={"force"}))
        return control.catalog.isolate_tenant(
            tenant, isolation, force=wish.force, actor=caller.actor, expect=seen
        )

    return tenants


def _as_seen_by(caller: Caller, tenant: Tenant) -> Tenant:
    """A tenant is told its level, and not on which engines."""
    if caller.tenant is None:
        return tenant
    shown = tenant.isolation.model_copy(update={"engines": (), "unclean": ()})
    return tenant.model_copy(update={"isolation": shown})
