"""Compare-and-set over HTTP: ETags are the counters that the catalog compares (RFC 9110, 13.1.1)."""

import re
from typing import Annotated, Any, Final

from fastapi import Depends, Header

from registry.canonical import Document
from registry.digests import Digest
from server.errors import InvalidPrecondition

_IDENTITY: Final = re.compile(r'"([0-9a-f]{64})"', re.ASCII)
_ETAG: Final = re.compile(r'"(0|[1-9][0-9]{0,14})"', re.ASCII)


def etag(counter: int) -> dict[str, str]:
    return {"ETag": f'"{counter}"'}


def etag_of(document: Document) -> dict[str, str]:
    """Of what has no counter."""
    return {"ETag": f'"{document.identity().hex}"'}


def expected() -> Any:
    """``epoch: Annotated[int | None, expected()]``: what the caller saw; None without If-Match."""

    def counter(
        if_match: Annotated[
            str | None,
            Header(description='The ETag that the change builds on; `"0"` for what does not exist yet'),
        ] = None,
    ) -> int | None:
        if if_match is None:
            return None
        found = _ETAG.fullmatch(if_match.strip())
        if found is None:
            raise InvalidPrecondition("If-Match must be one ETag of this resource")
        return int(found[1])

    return Depends(counter)


def expected_document() -> Any:
    """``seen: Annotated[Digest | None, expected_document()]``: the identity of what the caller saw."""

    def identity(
        if_match: Annotated[str | None, Header(description="The ETag that the change builds on")] = None,
    ) -> Digest | None:
        if if_match is None:
            return None
        found = _IDENTITY.fullmatch(if_match.strip())
        if found is None:
            raise InvalidPrecondition("If-Match must be one ETag of this resource")
        return Digest(f"sha256:{found[1]}")

    return Depends(identity)
