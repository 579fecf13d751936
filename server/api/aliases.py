"""Aliases: movable pointers at versions. A move names the epoch that its caller saw."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from registry.canonical import Document
from registry.catalog.aliases import AliasMove
from registry.catalog.errors import ApprovalRequired
from registry.catalog.preparations import MAX_SECONDS
from registry.digests import Digest
from registry.evidence import GatePolicy, Verdict
from registry.models import AliasState
from registry.promotions import Preparation, Proposal, Readiness, WayBack
from registry.signing.envelope import Envelope
from server.api.access import PEOPLE, TRAINERS, requires_of_tenant
from server.api.adapters import named
from server.api.bodies import takes
from server.api.caller import Caller, Who
from server.api.control import Control
from server.api.guarded import router
from server.api.pages import ENTRY, Page, Place, paged
from server.api.preconditions import etag, expected

_AT = "/tenants/{tenant}/adapters/{adapter}/aliases"
_PROMOTION = {
    "version": f"sha256:{'0' * 64}",
    "gate": {"name": "default", "rules": [{"metric": "exact_match", "at_least": 0.9}]},
    "percent": 10,
}


_PREPARATION = {"version": f"sha256:{'0' * 64}", "seconds": 120}


class Promotion(Document):
    version: Digest
    gate: GatePolicy
    """What must hold in the signed reports; without rules it refuses."""
    percent: float = Field(default=100, gt=0, le=100)
    """Less than 100: a canary beside the stable version."""
    release: Envelope | None = None
    expires_at: str | None = Field(default=None, max_length=40)
    require_ready: bool = False
    """Only if every engine that is to hold the version does, else 409 `promotion_not_ready`."""
    propose: bool | None = None
    """True: only as a proposal; false: only at once; null: at once where no approval is needed."""


class NewPreparation(Document):
    version: Digest
    gate: GatePolicy | None = None
    """Asked now as well, so that nobody waits for what it refuses."""
    percent: float = Field(default=100, gt=0, le=100)
    seconds: float = Field(default=120, gt=0, le=MAX_SECONDS)
    """How long engines are to hold the version for this, at most."""


class Promoted(Document):
    verdict: Verdict
    alias: AliasState


class Proposed(Document):
    proposal: Proposal


class Shadows(Document):
    versions: tuple[Digest, ...] = Field(max_length=16)
    """They get copies of requests and answer nobody; none: no shadows."""


def routes(control: Control) -> APIRouter:
    aliases = router()
    readers = requires_of_tenant(control, TRAINERS)
    people = requires_of_tenant(control, PEOPLE)

    @aliases.get(_AT, dependencies=[readers])
    def list_aliases(tenant: str, adapter: str, place: Annotated[Place, paged(control)]) -> Page[AliasState]:
        """Where the adapter's aliases point, by alias."""
        found = control.within(tenant).aliases(named(tenant, adapter))
        return place.cut(found, lambda state: state.alias)

    @aliases.get(f"{_AT}/{{alias}}", dependencies=[readers])
    def read_alias(tenant: str, adapter: str, alias: str, response: Response) -> AliasState:
        """Where one alias points; its ETag is the epoch that a move names in If-Match."""
        state = control.within(tenant).alias(named(tenant, adapter), alias)
        response.headers.update(etag(state.epoch))
        return state

    @aliases.get(f"{_AT}/{{alias}}/history", dependencies=[readers])
    def read_alias_history(
        tenant: str, adapter: str, alias: str, place: Annotated[Place, paged(control, behind=ENTRY)]
    ) -> Page[AliasMove]:
        """Every move with its cause and verdict, oldest first; empty for an alias that never was."""
        after = int(place.after) if place.after else None
        found = control.within(tenant).history(named(tenant, adapter), alias, after=after, limit=place.ask)
        return place.page(found, lambda move: move.entry)

    @aliases.post(
        f"{_AT}/{{alias}}/promotions", response_model=Promoted, responses={202: {"model": Proposed}}
    )
    def promote_alias(
        tenant: str,
        adapter: str,
        alias: str,
        caller: Annotated[Caller, people],
        epoch: Annotated[int | None, expected()],
        wanted: Annotated[Promotion, takes(Promotion, example=_PROMOTION)],
        response: Response,
    ) -> Promoted | Response:
        """Move the alias if the gate passes; 202 with a proposal where approval comes first.

        Refused by the gate: 403 `gate_refused` with the verdict, and nothing has moved.
        """
        name, catalog = named(tenant, adapter), control.within(tenant)
        try:
            if wanted.propose:
                raise ApprovalRequired("asked for as a proposal")
            verdict = catalog.promote(
                name,
                wanted.version,
                gate=wanted.gate,
                alias=alias,
                percent=wanted.percent,
                expect_epoch=epoch,
                release=wanted.release,
                expires_at=wanted.expires_at,
                require_ready=wanted.require_ready,
                actor=caller.actor,
            )
        except ApprovalRequired:
            if wanted.propose is False:
                raise
            proposal = catalog.propose(
                name,
                wanted.version,
                gate=wanted.gate,
                alias=alias,
                percent=wanted.percent,
                expect_epoch=epoch,
                release=wanted.release,
                expires_at=wanted.expires_at,
                actor=caller.actor,
            )
            return JSONResponse(Proposed(proposal=proposal).model_dump(mode="json"), status_code=202)
        state = catalog.alias(name, alias)
        response.headers.update(etag(state.epoch))
        return Promoted(verdict=verdict, alias=state)

    @aliases.post(f"{_AT}/{{alias}}/preparations")
    def prepare_promotion(
        tenant: str,
        adapter: str,
        alias: str,
        caller: Annotated[Caller, people],
        epoch: Annotated[int | None, expected()],
        wanted: Annotated[NewPreparation, takes(NewPreparation, example=_PREPARATION)],
    ) -> Preparation:
        """Have engines load and attest a version before the alias moves to it; nothing moves."""
        return control.within(tenant).prepare(
            named(tenant, adapter),
            wanted.version,
            seconds=wanted.seconds,
            gate=wanted.gate,
            alias=alias,
            percent=wanted.percent,
            expect_epoch=epoch,
            actor=caller.actor,
        )

    @aliases.get(f"{_AT}/{{alias}}/preparations/{{version}}")
    def read_readiness(
        tenant: str, adapter: str, alias: str, version: str, caller: Annotated[Caller, readers]
    ) -> Readiness:
        """How many engines are to hold the version, and how many do; which, only the platform is told."""
        found = control.catalog.readiness(named(tenant, adapter), Digest(version), alias=alias)
        if caller.who is Who.PLATFORM_ADMIN:
            return found
        return found.anonymous()

    @aliases.get(f"{_AT}/{{alias}}/rollback", dependencies=[readers])
    def read_way_back(tenant: str, adapter: str, alias: str, response: Response) -> WayBack:
        """Where a roll back would lead: the version to prepare first, if engines do not hold it."""
        found = control.within(tenant).way_back(named(tenant, adapter), alias=alias)
        response.headers.update(etag(found.epoch))
        return found

    @aliases.post(f"{_AT}/{{alias}}/rollback")
    def roll_back_alias(
        tenant: str,
        adapter: str,
        alias: str,
        caller: Annotated[Caller, people],
        epoch: Annotated[int | None, expected()],
        response: Response,
        require_ready: Annotated[
            bool,
            Query(description="If this would leave what answers: only when engines hold the version before"),
        ] = False,
    ) -> AliasState:
        """End the canaries if there are any, else go back to the version before."""
        state = control.within(tenant).rollback(
            named(tenant, adapter),
            alias=alias,
            expect_epoch=epoch,
            require_ready=require_ready,
            actor=caller.actor,
        )
        response.headers.update(etag(state.epoch))
        return state

    @aliases.put(f"{_AT}/{{alias}}/shadows")
    def set_shadows(
        tenant: str,
        adapter: str,
        alias: str,
        caller: Annotated[Caller, people],
        epoch: Annotated[int | None, expected()],
        wanted: Annotated[Shadows, takes(Shadows, example={"versions": []})],
        response: Response,
    ) -> AliasState:
        """Which versions get copies of the alias's requests."""
        state = control.within(tenant).shadow(
            named(tenant, adapter), wanted.versions, alias=alias, expect_epoch=epoch, actor=caller.actor
        )
        response.headers.update(etag(state.epoch))
        return state

    return aliases
