"""What routers tell each other of limits, so that a tenant has one limit and not one a router."""

from typing import Annotated

from fastapi import APIRouter

from registry.counting import CountAnswer, CountReport
from server.api.access import requires
from server.api.bodies import takes
from server.api.caller import Who
from server.api.control import Control
from server.api.guarded import router

_LARGEST = 2 << 20
"""Bytes of a report of 10,000 counts."""
_REPORT = {
    "writer": "router-0.5f1c",
    "seq": 7,
    "counts": [{"subject": "tenant/bank_a", "kind": "requests", "slot": 353965000, "value": 12}],
    "about": ["tenant/bank_a"],
}


def routes(control: Control) -> APIRouter:
    counters = router()

    @counters.post("/counters", dependencies=[requires(control, {Who.SERVICE})])
    def exchange_counts(
        report: Annotated[CountReport, takes(CountReport, limit=_LARGEST, example=_REPORT)],
    ) -> CountAnswer:
        """What a router let through, in absolute numbers; answered with what all others did."""
        return control.catalog.exchange_counts(report)

    return counters
