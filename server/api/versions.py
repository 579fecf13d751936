"""Immutable versions of adapters."""

from fastapi import APIRouter, Response

from registry.digests import Digest
from server.api.access import requires
from server.api.caller import Who
from server.api.control import Control
from server.api.guarded import router


def routes(control: Control) -> APIRouter:
    versions = router()

    @versions.get("/versions/{version}/manifest", dependencies=[requires(control, {Who.SERVICE})])
    def read_manifest(version: str) -> Response:
        """The canonical bytes: their digest is the version."""
        return Response(control.catalog.manifest(Digest(version)).canonical(), media_type="application/json")

    return versions
