"""Bytes by digest, of those tenants that sent them or whose versions are made of them."""

from collections.abc import Collection
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from registry.canonical import Document
from registry.digests import Digest
from registry.errors import BlobNotFound
from server.api import ranges
from server.api.access import TRAINERS, requires, requires_of_tenant
from server.api.bodies import streams, takes
from server.api.caller import Who
from server.api.control import Control
from server.api.guarded import router
from server.api.streams import Receiving, sending

_BYTES: Final = "application/octet-stream"
_AT_ONCE: Final = 8 << 20
"""Bytes up to which a blob is checked before the first of them leaves; longer ones are checked on the way."""
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {_BYTES: {"schema": {"type": "string", "format": "binary"}}}}
}


class Asked(Document):
    digests: tuple[Digest, ...] = Field(max_length=1000)


class Missing(Document):
    missing: tuple[Digest, ...]
    """What this tenant must send, in the order in which it was asked for."""


class StoredBlob(Document):
    digest: Digest
    size: int


def readable(control: Control, tenant: str, digests: Collection[Digest]) -> frozenset[Digest]:
    """Those of ``digests`` that the tenant may read.

    Decided without a look at the blobs themselves: what is another's and what is not there take the same
    way, and the same time.
    """
    named = control.within(tenant).named_blobs(tenant, digests)
    return named.union(
        digest for digest in digests if digest not in named and control.uploads.claims.has(tenant, digest)
    )


def require(control: Control, tenant: str, digests: Collection[Digest]) -> None:
    """Raises BlobNotFound for bytes that this tenant has not shown to have: a version made of another's blob
    would open that blob to whoever guessed its digest."""
    mine = readable(control, tenant, digests)
    for digest in digests:
        if digest not in mine:
            raise _absent(digest)


def routes(control: Control) -> APIRouter:
    blobs = router()
    trainers = requires_of_tenant(control, TRAINERS)
    receive = Receiving()

    @blobs.get(
        "/blobs/{digest}",
        dependencies=[requires(control, {Who.SERVICE})],
        response_class=Response,
        responses=_ANSWERS,
    )
    def read_any_blob(digest: str, request: Request) -> Response:
        """For engines: the bytes of every version, revoked ones too as long as they are kept."""
        return _answer(control, Digest(digest), request.headers.get("range"))

    @blobs.post("/tenants/{tenant}/blobs/missing", dependencies=[trainers])
    def list_missing_blobs(tenant: str, asked: Annotated[Asked, takes(Asked)]) -> Missing:
        """Which of these must still be sent. What others have sent is missing too: nobody learns of it.

        What is not missing stays for as long as an upload may take (a day).
        """
        mine = readable(control, tenant, asked.digests)
        return Missing(
            missing=tuple(
                digest for digest in asked.digests if digest not in mine or not control.blobs.renew(digest)
            )
        )

    @blobs.get(
        "/tenants/{tenant}/blobs/{digest}",
        dependencies=[trainers],
        response_class=Response,
        responses=_ANSWERS,
    )
    def read_blob(
        tenant: str,
        digest: str,
        range_: Annotated[str | None, Header(alias="Range", description="One range of bytes")] = None,
    ) -> Response:
        """The bytes. A part of them is **not** checked on the way: check the digest of the whole."""
        wanted = Digest(digest)
        require(control, tenant, [wanted])
        return _answer(control, wanted, range_)

    @blobs.put("/tenants/{tenant}/blobs/{digest}", status_code=201, dependencies=[trainers, streams()])
    async def write_blob(tenant: str, digest: str, request: Request) -> StoredBlob:
        """All bytes in one body. Whatever is not the digest's is refused, and nothing of it is kept."""
        wanted = Digest(digest)
        size = await receive(request, lambda body: control.uploads.whole(tenant, wanted, body))
        return StoredBlob(digest=wanted, size=size)

    return blobs


def _answer(control: Control, digest: Digest, wanted: str | None) -> Response:
    size = control.blobs.stat(digest).size
    headers = {"Accept-Ranges": "bytes", "ETag": f'"{digest}"', "Cache-Control": "private, no-transform"}
    part = ranges.asked(wanted, size)
    if part is not None:
        start, length = part
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
        headers["Content-Length"] = str(length)
        stream = control.blobs.open_unchecked(digest, start=start, size=length)
        return StreamingResponse(sending(stream), 206, headers, media_type=_BYTES)
    if size <= _AT_ONCE:
        return Response(control.blobs.read(digest), headers=headers, media_type=_BYTES)
    headers["Content-Length"] = str(size)
    return StreamingResponse(sending(control.blobs.open(digest)), headers=headers, media_type=_BYTES)


def _absent(digest: Digest) -> BlobNotFound:
    return BlobNotFound(f"no blob {digest.short}")
