"""Base models: which there are, and what must be agreed on to train and serve with them."""

from typing import Annotated

from fastapi import APIRouter

from registry.canonical import Document
from registry.contract import Contract
from registry.digests import Digest
from registry.models import Base
from server.api.access import TRAINERS, requires
from server.api.bodies import takes
from server.api.caller import Caller, Who
from server.api.control import Control
from server.api.guarded import router
from server.api.pages import Page, Place, paged


class NewBase(Document):
    base: Base
    contract: Contract


class FoundBase(Document):
    digest: Digest
    base: Base
    contract: Contract


class ListedBase(Document):
    digest: Digest
    base: Base


class RegisteredBase(Document):
    digest: Digest


def routes(control: Control) -> APIRouter:
    bases = router()
    readers = requires(control, TRAINERS | {Who.SERVICE})

    @bases.get("/bases", dependencies=[readers])
    def list_bases(place: Annotated[Place, paged(control)]) -> Page[ListedBase]:
        """All registered bases, by digest."""
        found = sorted(control.catalog.bases().items())
        return place.cut(
            [ListedBase(digest=digest, base=base) for digest, base in found], lambda each: each.digest
        )

    @bases.get("/bases/{ref:path}", dependencies=[readers])
    def read_base(ref: str) -> FoundBase:
        """A base by digest, or by name: then the one registered last."""
        digest, base, contract = control.catalog.base(ref)
        return FoundBase(digest=digest, base=base, contract=contract)

    @bases.post("/bases", status_code=201)
    def register_base(
        caller: Annotated[Caller, requires(control, {Who.PLATFORM_ADMIN})],
        wanted: Annotated[NewBase, takes(NewBase, limit=4 << 20)],
    ) -> RegisteredBase:
        """Make this base the one that its name means."""
        digest = control.catalog.register_base(wanted.base, wanted.contract, actor=caller.actor)
        return RegisteredBase(digest=digest)

    return bases
