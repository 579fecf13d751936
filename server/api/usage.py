"""Who used what: counted by routers, summed by version and day."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Path, Query

from registry.canonical import Document
from registry.errors import InvalidInput
from registry.usage import By, UsageBatch, UsageCounted, UsageSum
from server.api.access import PEOPLE, requires, requires_of_tenant
from server.api.bodies import takes
from server.api.caller import Who
from server.api.control import Control
from server.api.guarded import router
from server.api.pages import Page, Place, paged

_KEY = r"^[!-~]{1,130}( [!-~]{1,130}){0,2}$"
"""Day, adapter and version, those of them that tell the sums apart."""
_DAY = r"^\d{4}-\d{2}-\d{2}$"
_BATCH = {
    "writer": "router-0",
    "seq": 0,
    "lines": [
        {
            "tenant": "bank_a",
            "adapter": "assistant",
            "version": f"sha256:{'0' * 64}",
            "day": "2026-01-31",
            "requests": 12,
            "prompt_tokens": 3400,
            "completion_tokens": 560,
        }
    ],
}
_LONGEST = 366
_LARGEST = 4 << 20
"""Bytes of a batch of 10,000 lines."""


class Counted(Document):
    counted: bool
    """False: this batch was counted before."""


def routes(control: Control) -> APIRouter:
    usage = router()

    @usage.post("/usage", dependencies=[requires(control, {Who.SERVICE})])
    def count_usage(
        batch: Annotated[UsageBatch, takes(UsageBatch, limit=_LARGEST, example=_BATCH)],
    ) -> Counted:
        """A router's counts since its batch before."""
        return Counted(counted=control.catalog.count_usage(batch))

    @usage.get("/usage/{writer}", dependencies=[requires(control, {Who.SERVICE})])
    def read_usage_counted(
        writer: Annotated[str, Path(min_length=1, max_length=200, description="Who reports usage")],
    ) -> UsageCounted:
        """The seq of a writer's newest batch; -1 before any."""
        return control.catalog.usage_counted(writer)

    @usage.get("/tenants/{tenant}/usage", dependencies=[requires_of_tenant(control, PEOPLE)])
    def read_usage(
        tenant: str,
        place: Annotated[Place, paged(control, behind=_KEY)],
        first_day: Annotated[str, Query(pattern=_DAY, description="UTC, included", examples=["2026-01-01"])],
        last_day: Annotated[str, Query(pattern=_DAY, description="UTC, included", examples=["2026-01-31"])],
        by: Annotated[By | None, Query(description="Sum over the other one")] = None,
    ) -> Page[UsageSum]:
        """What the tenant's versions did: a line for each version and day, or sums."""
        first, last = _day(first_day), _day(last_day)
        if not 0 <= (last - first).days < _LONGEST:
            raise InvalidInput(f"ask for 1 to {_LONGEST} days")
        found = control.within(tenant).usage_sums(
            tenant, first_day=first_day, last_day=last_day, by=by, after=place.after, limit=place.ask
        )
        return place.page(found, lambda each: each.key)

    return usage


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"there is no day {text[:20]!r}") from None
