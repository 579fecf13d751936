"""Whose signatures count: the trusted public keys, each for one thing."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from registry.models import PublicKey
from server.api.access import TRAINERS, requires
from server.api.bodies import takes
from server.api.caller import Caller, Who
from server.api.control import Control
from server.api.guarded import router
from server.api.pages import Page, Place, paged

_KEY = {"id": "66687aadf862bd77", "role": "release", "ed25519": "00" * 32}


def routes(control: Control) -> APIRouter:
    signers = router()
    admin = requires(control, {Who.PLATFORM_ADMIN})

    @signers.get("/signers", dependencies=[requires(control, TRAINERS | {Who.SERVICE})])
    def list_signers(place: Annotated[Place, paged(control)]) -> Page[PublicKey]:
        """The public keys whose signatures are accepted now, by id: proofs are checked with them."""
        return place.cut(
            sorted(control.catalog.trusted().values(), key=lambda key: key.id), lambda key: key.id
        )

    @signers.post("/signers", status_code=201)
    def trust_signer(
        caller: Annotated[Caller, admin], key: Annotated[PublicKey, takes(PublicKey, example=_KEY)]
    ) -> PublicKey:
        """Accept this key's signatures from now on."""
        control.catalog.trust(key, actor=caller.actor)
        return key

    @signers.delete("/signers/{signer}", status_code=204)
    def distrust_signer(
        signer: str,
        caller: Annotated[Caller, admin],
        reason: Annotated[str, Query(min_length=1, max_length=500)],
    ) -> Response:
        """Accept nothing that this key signs from now on; what it signed before stays valid."""
        control.catalog.distrust(signer, reason=reason, actor=caller.actor)
        return Response(status_code=204)

    return signers
