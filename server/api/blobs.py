"""Bytes by digest."""

from fastapi import APIRouter, Response

from registry.digests import Digest
from registry.errors import BlobNotFound
from server.api.access import requires
from server.api.caller import Who
from server.api.control import Control
from server.api.guarded import router


def routes(control: Control) -> APIRouter:
    blobs = router()

    @blobs.get("/blobs/{digest}", dependencies=[requires(control, {Who.SERVICE})])
    def read_any_blob(digest: str) -> Response:
        """Checked before the first byte leaves: a reader never sees bytes that are not the digest's."""
        wanted = Digest(digest)
        if not control.blobs.has(wanted):
            raise BlobNotFound(f"no blob {wanted.short}")
        return Response(control.blobs.read(wanted), media_type="application/octet-stream")

    return blobs
