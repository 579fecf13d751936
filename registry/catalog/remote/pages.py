"""Lists come in pages; the next one is asked for when somebody reads that far."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, TypeVar

from registry.catalog.remote.errors import AnswerInvalid
from registry.catalog.remote.wire import Query, Wire, member, read

T = TypeVar("T")

LARGEST: Final = 200
"""Items a page; the API gives no more."""


def items(
    wire: Wire,
    path: str,
    query: Query | None = None,
    *,
    after: object = None,
    limit: int | None = None,
) -> Iterator[Any]:
    """The items of a list, decoded; ``limit`` in all (None: every one)."""
    size = LARGEST if limit is None else min(limit, LARGEST)
    asked = dict(query or {}) | ({} if after is None else {"after": str(after)})
    return islice(_pages(wire, path, asked, size), limit) if size else iter(())


def listed(
    wire: Wire,
    path: str,
    kind: type[T],
    *,
    query: Query | None = None,
    after: object = None,
    limit: int | None = None,
) -> tuple[T, ...]:
    """The items as nouns. ``after``: only those behind it, in the order of the list."""
    return tuple(read(kind, item) for item in items(wire, path, query, after=after, limit=limit))


def _pages(wire: Wire, path: str, query: Query, size: int) -> Iterator[Any]:
    cursor: str | None = None
    seen: set[str] = set()
    while True:
        page = wire.get(path, {**query, "limit": size, **({"cursor": cursor} if cursor else {})})
        content = member(page, "items")
        if not isinstance(content, list):
            raise AnswerInvalid("the registry's answer is no list")
        yield from content
        cursor = page.get("next")
        if cursor is None:
            return
        if not isinstance(cursor, str) or cursor in seen:  # a list that leads back into itself never ends
            raise AnswerInvalid("the registry's list leads nowhere")
        seen.add(cursor)
