"""Policies: what every answer must satisfy, by digest."""

from typing import Annotated

from fastapi import APIRouter

from registry.canonical import Document
from registry.digests import Digest
from registry.errors import InvalidDocument, PolicyNotFound
from registry.models import Policy
from server.api.access import PEOPLE, TRAINERS, requires_of_tenant
from server.api.bodies import takes
from server.api.caller import Caller
from server.api.control import Control
from server.api.guarded import router
from server.api.pages import DIGEST, Page, Place, paged

_POLICY = {"tenant": "bank_a", "name": "answers", "sampling": {"max_tokens": 256}}


class PublishedPolicy(Document):
    digest: Digest


def routes(control: Control) -> APIRouter:
    policies = router()
    readers = requires_of_tenant(control, TRAINERS)

    @policies.get("/tenants/{tenant}/policies", dependencies=[readers])
    def list_policies(tenant: str, place: Annotated[Place, paged(control, behind=DIGEST)]) -> Page[Policy]:
        """Every policy that the tenant ever published, by digest."""
        after = Digest(place.after) if place.after else None
        found = control.within(tenant).policies(tenant, after=after, limit=place.ask)
        return place.page(found, lambda policy: policy.identity())

    @policies.post("/tenants/{tenant}/policies", status_code=201)
    def publish_policy(
        tenant: str,
        caller: Annotated[Caller, requires_of_tenant(control, PEOPLE)],
        policy: Annotated[Policy, takes(Policy, example=_POLICY)],
    ) -> PublishedPolicy:
        """A policy, linted: an engine must be able to enforce its schema. Routes name it by its digest."""
        if policy.tenant != tenant:
            raise InvalidDocument("the tenant in the path and in the body differ")
        return PublishedPolicy(digest=control.within(tenant).publish_policy(policy, actor=caller.actor))

    @policies.get("/tenants/{tenant}/policies/{digest}", dependencies=[readers])
    def read_policy(tenant: str, digest: str) -> Policy:
        """One policy."""
        policy = control.within(tenant).policy(Digest(digest))
        if policy.tenant != tenant:  # as unknown as one that does not exist
            raise PolicyNotFound(f"there is no policy {digest[:80]!r}")
        return policy

    return policies
