"""Four eyes: promotions that wait for approval, and which aliases need it."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from registry.canonical import Document
from registry.catalog.errors import ProposalNotFound, ProtectionWeakened
from registry.promotions import Proposal, Protection, weaker
from server.api.access import PEOPLE, requires_of_tenant
from server.api.bodies import takes
from server.api.caller import Caller
from server.api.control import Control
from server.api.guarded import router
from server.api.pages import ID, Page, Place, paged


class Rejection(Document):
    reason: str = Field(min_length=1, max_length=500)


class NewProtection(Document):
    approvals: int = Field(default=0, ge=0, le=5)
    release_signature: bool = False


def routes(control: Control) -> APIRouter:
    proposals = router()
    people = requires_of_tenant(control, PEOPLE)

    def owned(proposal_id: str, tenant: str) -> str:
        """Another tenant's proposal is as unknown as one that does not exist."""
        if control.within(tenant).proposal(proposal_id).tenant != tenant:
            raise ProposalNotFound(f"there is no proposal {proposal_id[:80]!r}")
        return proposal_id

    @proposals.get("/tenants/{tenant}/proposals", dependencies=[people])
    def list_proposals(tenant: str, place: Annotated[Place, paged(control, behind=ID)]) -> Page[Proposal]:
        """All proposals in whatever state, oldest first."""
        found = control.within(tenant).proposals(tenant, after=place.after, limit=place.ask)
        return place.page(found, lambda proposal: proposal.id)

    @proposals.post("/tenants/{tenant}/proposals/{proposal}/approve")
    def approve_proposal(
        tenant: str,
        proposal: str,
        caller: Annotated[Caller, people],
        require_ready: Annotated[
            bool, Query(description="If this would move the alias: only when its engines hold the version")
        ] = False,
    ) -> Proposal:
        """Consent; with enough of it the gate is asked again and the alias moves."""
        # Not within the tenant: whether a platform admin's key is a second person, only the platform sees.
        return control.catalog.approve(
            owned(proposal, tenant), require_ready=require_ready, actor=caller.actor
        )

    @proposals.post("/tenants/{tenant}/proposals/{proposal}/reject")
    def reject_proposal(
        tenant: str,
        proposal: str,
        caller: Annotated[Caller, people],
        rejection: Annotated[Rejection, takes(Rejection, example={"reason": "not before Monday"})],
    ) -> Proposal:
        """Close the proposal; nothing moves."""
        return control.within(tenant).reject(
            owned(proposal, tenant), reason=rejection.reason, actor=caller.actor
        )

    @proposals.get("/tenants/{tenant}/protections", dependencies=[people])
    def list_protections(tenant: str, place: Annotated[Place, paged(control)]) -> Page[Protection]:
        """What promotions need besides their gate, by alias."""
        return place.cut(control.within(tenant).protections(tenant), lambda each: each.alias)

    @proposals.get("/tenants/{tenant}/protections/{alias}", dependencies=[people])
    def read_protection(tenant: str, alias: str) -> Protection:
        """What promotions of one alias need; nothing, unless somebody said so."""
        found = control.within(tenant).protections(tenant)
        nothing = Protection.build({"tenant": tenant, "alias": alias})
        return next((each for each in found if each.alias == alias), nothing)

    @proposals.put("/tenants/{tenant}/protections/{alias}")
    def protect_alias(
        tenant: str,
        alias: str,
        caller: Annotated[Caller, people],
        wanted: Annotated[NewProtection, takes(NewProtection, example={"approvals": 1})],
    ) -> Protection:
        """What promotions of this alias need, for all adapters. Only the platform takes it back."""
        document = {"tenant": tenant, "alias": alias} | wanted.model_dump(mode="json")
        protection = Protection.build(document)
        catalog = control.catalog  # which sees whose the caller's key is, a platform admin's too
        known = next((each for each in catalog.protections(tenant) if each.alias == alias), None)
        if caller.tenant is not None and known is not None and weaker(protection, known):
            # The catalog asks the same of keys; the actor of a token does not tell it whose it is.
            raise ProtectionWeakened(f"nobody of the tenant can take protection from {alias}")
        catalog.protect(protection, actor=caller.actor)
        return protection

    return proposals
