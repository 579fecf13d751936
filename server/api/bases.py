"""Base models: which there are, and what must be agreed on to train and serve with them."""

from fastapi import APIRouter, Response

from server.api.access import requires
from server.api.caller import Who
from server.api.control import Control
from server.api.guarded import router


def routes(control: Control) -> APIRouter:
    bases = router()

    @bases.get("/bases/{ref:path}", dependencies=[requires(control, {Who.SERVICE})])
    def read(ref: str) -> Response:
        _, document, _ = control.catalog.base(ref)
        return Response(document.canonical(), media_type="application/json")

    return bases
