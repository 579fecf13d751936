"""The log: what was done, and the proofs that nothing of it was changed or left out."""

from typing import Annotated, Final

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from registry.log.entries import Entry, Head
from registry.log.handovers import KeyHistory
from registry.log.statements import Consistency, Inclusion
from registry.signing.envelope import Envelope
from server.api.access import PEOPLE, requires, requires_of_tenant
from server.api.caller import Who
from server.api.control import Control
from server.api.guarded import router
from server.api.pages import Page, Place, paged

_LINES: Final = "application/jsonl"
_LARGEST: Final = (1 << 31) - 1
"""More entries than the columns of a database can number."""
Index = Annotated[int, Query(ge=0, le=_LARGEST)]
Size = Annotated[int | None, Query(ge=0, le=_LARGEST, description="Entries; without it, as the log is now")]


def routes(control: Control) -> APIRouter:
    log = router()
    catalog = control.catalog
    platform = [requires(control, {Who.PLATFORM_ADMIN})]
    people = [requires(control, PEOPLE)]
    own = [requires_of_tenant(control, PEOPLE)]

    @log.get("/log/head", dependencies=people)
    def read_head(size: Size = None) -> Envelope:
        """The newest signed head, or the one over exactly `size` entries. Keep it: later ones continue it."""
        return catalog.head(size)

    @log.get("/log/heads", dependencies=people)
    def list_heads(place: Annotated[Place, paged(control)], after: Index = 0) -> Page[Envelope]:
        """Every signed head over more than `after` entries, oldest first: for monitors."""
        seen = int(place.after) if place.after is not None else after
        found = catalog.heads(after=seen, limit=place.ask)
        return place.page(found, lambda envelope: Head.parse(envelope.body()).size)

    @log.get("/log/entries", dependencies=platform)
    def list_entries(place: Annotated[Place, paged(control)], start: Index = 0) -> Page[Entry]:
        """All entries from index `start` on."""
        return place.page(catalog.entries(_start(place, start), place.ask), lambda entry: entry.index)

    @log.get("/log/inclusion", dependencies=platform)
    def prove_inclusion(index: Index, size: Size = None) -> Inclusion:
        """Proof that entry `index` is in the log of `size` entries (RFC 9162, 2.1.3)."""
        return catalog.inclusion(index, size)

    @log.get("/log/consistency", dependencies=people)
    def prove_consistency(first: Index, second: Size = None) -> Consistency:
        """Proof that the log at `second` entries only continues the one at `first` (RFC 9162, 2.1.4)."""
        return catalog.consistency(first, second)

    @log.get("/log/key-history", dependencies=people)
    def read_key_history() -> KeyHistory:
        """Every change of the log key, with proofs: from one trusted key to the one in force."""
        return catalog.key_history()

    @log.get("/tenants/{tenant}/log", dependencies=own)
    def list_own_entries(
        tenant: str, place: Annotated[Place, paged(control)], start: Index = 0
    ) -> Page[Entry]:
        """The tenant's entries from index `start` on. Indexes have gaps: between them are others' entries."""
        found = control.within(tenant).entries(_start(place, start), place.ask, tenant=tenant)
        return place.page(found, lambda entry: entry.index)

    @log.get(
        "/tenants/{tenant}/log/export",
        dependencies=own,
        response_class=StreamingResponse,
        responses={200: {"content": {_LINES: {"schema": {"type": "string"}}}}},
    )
    def export_log(tenant: str) -> StreamingResponse:
        """The tenant's entries with proofs against one signed head, as lines that verify offline."""
        return StreamingResponse(catalog.export_log(tenant), media_type=_LINES)

    return log


def _start(place: Place, start: int) -> int:
    return start if place.after is None else int(place.after) + 1
