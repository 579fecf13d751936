"""Uploads that survive broken connections: begin, send chunks, and ask how far they came."""

from typing import Annotated, Final

from fastapi import APIRouter, Header, Request, Response
from pydantic import Field

from registry.blobs.errors import UploadMisplaced
from registry.canonical import Document
from registry.digests import Digest
from server.api import problems
from server.api.access import TRAINERS, requires_of_tenant
from server.api.bodies import streams, takes
from server.api.control import Control
from server.api.guarded import router
from server.api.streams import Receiving

OFFSET: Final = "Upload-Offset"
_LENGTH: Final = "Upload-Length"
AT: Final = "/tenants/{tenant}/uploads/{digest}"


class NewUpload(Document):
    digest: Digest
    size: int = Field(ge=0, le=1 << 50)
    """Bytes of the whole."""


class UploadView(Document):
    digest: Digest
    size: int
    offset: int
    """Where the next byte belongs; the size when nothing needs to be sent any more."""


def routes(control: Control) -> APIRouter:
    uploads = router()
    trainers = requires_of_tenant(control, TRAINERS)
    receive = Receiving()

    @uploads.post("/tenants/{tenant}/uploads", dependencies=[trainers])
    def begin_upload(tenant: str, wanted: Annotated[NewUpload, takes(NewUpload)]) -> UploadView:
        """Begin an upload, or go on with one that broke off."""
        offset = control.uploads.begin(tenant, wanted.digest, wanted.size)
        return UploadView(digest=wanted.digest, size=wanted.size, offset=offset)

    @uploads.get(AT, dependencies=[trainers])
    def read_upload(tenant: str, digest: str, response: Response) -> UploadView:
        """How far an upload has come; 404 once it is complete, given up or expired."""
        wanted = Digest(digest)
        found = control.uploads.offset(tenant, wanted)
        response.headers.update(_headers(found.offset) | {_LENGTH: str(found.size)})
        return UploadView(digest=wanted, size=found.size, offset=found.offset)

    @uploads.head(AT, dependencies=[trainers])
    def measure_upload(tenant: str, digest: str) -> Response:
        """The same in headers: Upload-Offset and Upload-Length."""
        found = control.uploads.offset(tenant, Digest(digest))
        return Response(headers=_headers(found.offset) | {_LENGTH: str(found.size)})

    @uploads.patch(AT, status_code=204, response_class=Response, dependencies=[trainers, streams()])
    async def append_to_upload(
        tenant: str,
        digest: str,
        request: Request,
        upload_offset: Annotated[int, Header(ge=0, le=1 << 50, description="Where this chunk belongs")],
    ) -> Response:
        """The next chunk, 8 MiB at best. With the last byte the digest is checked: nothing of other bytes is
        kept. 409 names the right offset in Upload-Offset."""
        wanted = Digest(digest)
        try:
            offset = await receive(
                tenant, request, lambda body: control.uploads.append(tenant, wanted, upload_offset, body)
            )
        except UploadMisplaced as error:
            return problems.of(error, headers=_headers(error.facts["offset"]))
        return Response(status_code=204, headers=_headers(offset))

    return uploads


def _headers(offset: object) -> dict[str, str]:
    return {OFFSET: str(offset), "Cache-Control": "no-store"}
