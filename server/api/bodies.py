"""Request bodies: bounded, strictly parsed, and known to the API's description."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from fastapi import Depends, Request

from registry.canonical import Document
from registry.errors import InvalidInput
from server.errors import BodyTooLarge, MediaTypeNotSupported

D = TypeVar("D", bound=Document)

BODY: Final = "tenon.body"
"""Where the guard leaves the body's bytes in the ASGI scope."""
LIMIT: Final = 1 << 20
"""Bytes of a document; the largest in use, a fingerprint, has some hundred thousand."""


@dataclass(frozen=True)
class Taken(Generic[D]):
    """A dependency that gives the endpoint its body as a document: no unknown fields, no key twice."""

    model: type[D]
    limit: int = LIMIT
    example: Mapping[str, Any] | None = field(default=None, compare=False)

    def __call__(self, request: Request) -> D:
        return self.model.parse(request.scope[BODY])


@dataclass(frozen=True)
class Streamed:
    """A mark: the endpoint reads the body itself, piece by piece, and bounds it itself."""

    media_type: str = "application/octet-stream"

    async def __call__(self) -> None:
        return None


def takes(model: type[Document], *, limit: int = LIMIT, example: Mapping[str, Any] | None = None) -> Any:
    """``document: Annotated[NewKey, takes(NewKey)]``; the example is for the API's description."""
    return Depends(Taken(model, limit, example))


def streams() -> Any:
    """``dependencies=[streams()]`` of an endpoint that reads ``request.stream()``."""
    return Depends(Streamed())


async def receive(request: Request, taken: Taken[Any] | None) -> bytes:
    """The body, also left in the scope for its ``Taken``.

    Raises BodyTooLarge, MediaTypeNotSupported, InvalidInput.
    """
    limit = taken.limit if taken else 2
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit and taken:
            raise BodyTooLarge(f"the document is larger than {limit} bytes", limit=limit)
        if len(body) > limit:
            break
    if taken is None and bytes(body) not in (b"", b"{}"):  # clients that cannot send nothing send an object
        raise InvalidInput("this request takes no body")
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if taken and kind != "application/json":
        raise MediaTypeNotSupported("a document is sent as application/json")
    kept = request.scope[BODY] = bytes(body)
    return kept
