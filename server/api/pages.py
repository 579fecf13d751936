"""Lists in pages: a cursor is opaque, belongs to one list and cannot be made by hand."""

import base64
import binascii
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Generic, TypeVar

from fastapi import Depends, Query, Request
from pydantic import BaseModel, ConfigDict

from server.api.control import Control
from server.errors import InvalidCursor

T = TypeVar("T")

LARGEST: Final = 200
USUAL: Final = 50
ID: Final = r"^[!-~]{1,300}$"
DIGEST: Final = r"^sha256:[0-9a-f]{64}$"
ENTRY: Final = r"^[0-9]{1,10}$"
"""An index in the log."""
_MAC: Final = 16
"""Bytes of the tag: 128 bits cannot be guessed online."""


class Page(BaseModel, Generic[T]):
    """A part of a list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: tuple[T, ...]
    next: str | None
    """Give it back as ``cursor`` for the items that follow; null on the last page."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in which list a page begins, and how long it may be."""

    secret: bytes
    scope: str
    after: str | None
    limit: int

    def page(self, items: Sequence[T], key: Callable[[T], Any]) -> Page[T]:
        """From ``limit + 1`` items (the last one shows that there are more) or fewer."""
        shown = tuple(items[: self.limit])
        more = len(items) > self.limit
        return Page(items=shown, next=seal(self.secret, self.scope, str(key(shown[-1]))) if more else None)

    def cut(self, items: Sequence[T], key: Callable[[T], Any]) -> Page[T]:
        """From a whole list that is short by nature; it begins again when the item seen last is gone."""
        seen = [str(key(item)) for item in items]
        start = seen.index(self.after) + 1 if self.after in seen else 0
        return self.page(items[start : start + self.ask], key)

    @property
    def ask(self) -> int:
        """How many items to ask the catalog for."""
        return self.limit + 1


def paged(control: Control, *, behind: str | None = None) -> Any:
    """``place: Annotated[Place, paged(control)]``. ``behind``: a pattern of keys, for a list sorted by what
    its items show, which can begin behind a key that the caller knows."""
    secret = hmac.digest(control.service_token.encode(), b"tenon cursor", "sha256")

    def place(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=LARGEST, description="Items a page")] = USUAL,
        cursor: Annotated[str | None, Query(max_length=2048, description="`next` of the page before")] = None,
    ) -> Place:
        scope = request.url.path
        after = unseal(secret, scope, cursor) if cursor is not None else None
        return Place(secret, scope, after, limit)

    def place_behind(
        start: Annotated[Place, Depends(place)],
        after: Annotated[
            str | None,
            Query(pattern=behind, description="Only what follows this one; a cursor goes before it"),
        ] = None,
    ) -> Place:
        return start if start.after is not None else replace(start, after=after)

    return Depends(place if behind is None else place_behind)


def seal(secret: bytes, scope: str, after: str) -> str:
    return base64.urlsafe_b64encode(_tag(secret, scope, after.encode()) + after.encode()).decode().rstrip("=")


def unseal(secret: bytes, scope: str, cursor: str) -> str:
    """Raises InvalidCursor for whatever :func:`seal` did not make for this list."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        after = raw[_MAC:].decode()
    except (binascii.Error, ValueError):
        raise InvalidCursor("this cursor was not given out") from None
    if (
        not hmac.compare_digest(raw[:_MAC], _tag(secret, scope, after.encode()))
        or seal(secret, scope, after) != cursor
    ):
        raise InvalidCursor("this cursor was not given out for this list")
    return after


def _tag(secret: bytes, scope: str, after: bytes) -> bytes:
    return hmac.digest(secret, scope.encode() + b"\0" + after, "sha256")[:_MAC]
