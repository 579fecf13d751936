"""API keys: shown once, rotated with overlap, revoked at once."""

from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import Field

from registry.canonical import Document
from registry.errors import KeyNotFound
from registry.models import Key, Quota, Role
from server.api.access import PEOPLE, requires, requires_of_tenant
from server.api.bodies import takes
from server.api.caller import Caller, Who
from server.api.control import Control
from server.api.guarded import router
from server.api.pages import ID, Page, Place, paged


class NewKey(Document):
    """A key of a tenant; platform admins' keys are made at ``/keys`` and nowhere else."""

    role: Literal["inference", "trainer", "tenant_admin"]
    """Words and not members of Role: an error quotes what is allowed."""
    label: str = Field(default="", max_length=100)
    expires_at: str | None = Field(default=None, max_length=40)


class NewAdminKey(Document):
    role: Literal["platform_admin"] = "platform_admin"
    label: str = Field(default="", max_length=100)
    expires_at: str | None = Field(default=None, max_length=40)


class Overlap(Document):
    overlap_seconds: float = Field(default=3600, ge=0, le=30 * 86400, allow_inf_nan=False)
    """The old key keeps working so long."""


class KeyChange(Document):
    quota: Quota
    """The whole of it; one without any limit takes the key's limits away."""


class IssuedKey(Document):
    key: Key
    secret: str
    """Shown now and never again."""


def routes(control: Control) -> APIRouter:
    keys = router()
    admin = requires(control, {Who.PLATFORM_ADMIN})
    people = requires_of_tenant(control, PEOPLE)

    def owned(key_id: str, tenant: str | None) -> str:
        """Another's key is as unknown as one that does not exist."""
        if control.catalog.key(key_id).tenant != tenant:
            raise KeyNotFound(f"there is no key {key_id[:80]!r}")
        return key_id

    @keys.post("/tenants/{tenant}/keys", status_code=201)
    def issue_key(
        tenant: str,
        caller: Annotated[Caller, people],
        wanted: Annotated[NewKey, takes(NewKey, example={"role": "trainer", "label": "nightly training"})],
    ) -> IssuedKey:
        """A new key of the tenant."""
        key, secret = control.within(tenant).issue_key(
            tenant,
            role=Role(wanted.role),
            label=wanted.label,
            expires_at=wanted.expires_at,
            actor=caller.actor,
        )
        return IssuedKey(key=key, secret=secret)

    @keys.get("/tenants/{tenant}/keys", dependencies=[people])
    def list_keys(tenant: str, place: Annotated[Place, paged(control, behind=ID)]) -> Page[Key]:
        """The tenant's keys, by id: hashes, never secrets."""
        found = control.within(tenant).keys(tenant, after=place.after, limit=place.ask)
        return place.page(found, lambda key: key.id)

    @keys.post("/tenants/{tenant}/keys/{key}/rotate", status_code=201)
    def rotate_key(
        tenant: str,
        key: str,
        caller: Annotated[Caller, people],
        overlap: Annotated[Overlap, takes(Overlap, example={"overlap_seconds": 3600})],
    ) -> IssuedKey:
        """A new key in the place of an old one, which ends after the overlap."""
        issued, secret = control.within(tenant).rotate_key(
            owned(key, tenant), overlap_seconds=overlap.overlap_seconds, actor=caller.actor
        )
        return IssuedKey(key=issued, secret=secret)

    @keys.patch("/tenants/{tenant}/keys/{key}")
    def change_key(
        tenant: str,
        key: str,
        caller: Annotated[Caller, people],
        change: Annotated[KeyChange, takes(KeyChange, example={"quota": {"requests_per_minute": 60}})],
    ) -> Key:
        """Limits of one key, within what its tenant may use; routers keep to them within 2 seconds."""
        catalog = control.within(tenant)
        catalog.limit_key(owned(key, tenant), change.quota, actor=caller.actor)
        return catalog.key(key)

    @keys.delete("/tenants/{tenant}/keys/{key}", status_code=204)
    def revoke_key(tenant: str, key: str, caller: Annotated[Caller, people]) -> Response:
        """The key opens nothing from now on; routers know it within 2 seconds."""
        control.within(tenant).revoke_key(owned(key, tenant), actor=caller.actor)
        return Response(status_code=204)

    @keys.post("/keys", status_code=201)
    def issue_admin_key(
        caller: Annotated[Caller, admin],
        wanted: Annotated[NewAdminKey, takes(NewAdminKey, example={"label": "on call"})],
    ) -> IssuedKey:
        """A new key of the platform."""
        key, secret = control.catalog.issue_key(
            None, role=Role(wanted.role), label=wanted.label, expires_at=wanted.expires_at, actor=caller.actor
        )
        return IssuedKey(key=key, secret=secret)

    @keys.get("/keys", dependencies=[admin])
    def list_admin_keys(place: Annotated[Place, paged(control, behind=ID)]) -> Page[Key]:
        """The platform's keys, by id."""
        return place.page(control.catalog.keys(None, after=place.after, limit=place.ask), lambda key: key.id)

    @keys.post("/keys/{key}/rotate", status_code=201)
    def rotate_admin_key(
        key: str,
        caller: Annotated[Caller, admin],
        overlap: Annotated[Overlap, takes(Overlap, example={"overlap_seconds": 3600})],
    ) -> IssuedKey:
        """A new platform key in the place of an old one."""
        issued, secret = control.catalog.rotate_key(
            owned(key, None), overlap_seconds=overlap.overlap_seconds, actor=caller.actor
        )
        return IssuedKey(key=issued, secret=secret)

    @keys.delete("/keys/{key}", status_code=204)
    def revoke_admin_key(key: str, caller: Annotated[Caller, admin]) -> Response:
        """The platform key opens nothing from now on."""
        control.catalog.revoke_key(owned(key, None), actor=caller.actor)
        return Response(status_code=204)

    return keys
