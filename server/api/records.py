"""Request records that routers ship, so that a database can answer questions about them."""

from typing import Annotated

from fastapi import APIRouter, Path

from registry.shipping import RecordBatch, Stored
from server.api.access import requires
from server.api.bodies import takes
from server.api.caller import Who
from server.api.control import Control
from server.api.guarded import router

_LARGEST = 4 << 20
"""Bytes of a batch: 1,000 lines of 1.2 kB, each quoted once more."""
_BATCH = {"writer": "router-0", "first": 0, "lines": ['{"adapter":"assistant"}']}


def routes(control: Control) -> APIRouter:
    records = router()

    @records.post("/records", dependencies=[requires(control, {Who.SERVICE})])
    def ship_records(
        batch: Annotated[RecordBatch, takes(RecordBatch, limit=_LARGEST, example=_BATCH)],
    ) -> Stored:
        """Lines of a router's chain under a signed head, in order; what is there already changes nothing."""
        return control.catalog.ship_records(batch)

    @records.get("/records/{writer}", dependencies=[requires(control, {Who.SERVICE})])
    def read_records(
        writer: Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="A router's chain")],
    ) -> Stored:
        """How far a writer's records are there."""
        return control.catalog.records_stored(writer)

    return records
