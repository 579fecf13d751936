"""A router's chain of records in a folder, and its signed heads."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from registry.catalog.local.catalog import LocalCatalog
from registry.clock import ManualClock
from registry.shipping import KnownHead, RecordBatch
from registry.signing.envelope import Envelope
from router.limits import Cadence
from router.records import Heads, RecordLog, Trace
from router.records.log import durable
from router.records.segments import Segments
from tests.support.registries import World, signer


class Sink:
    """A registry that is asked without HTTP."""

    def __init__(self, catalog: LocalCatalog) -> None:
        self._catalog = catalog

    async def known(self, writer: str) -> KnownHead:
        return self._catalog.record_head_known(writer)

    async def submit(self, envelope: Envelope) -> None:
        self._catalog.record_head(envelope, actor="test")


def grow(folder: Path, tenants: Sequence[str | None], catalog: LocalCatalog, *, more: int = 0) -> list[bytes]:
    """A record for each of ``tenants`` in the chain of writer ``folder.name``, a head over them, and ``more``
    that no head covers. All lines of the chain."""

    async def run() -> None:
        clock, cadence, key = ManualClock(), Cadence(head_seconds=3600), signer("router")
        segments = Segments(folder, writer=folder.name, segment_bytes=4000)
        log = RecordLog(segments, writer=folder.name, clock=clock, cadence=cadence, key=key.public)
        await log.open()
        heads = Heads(
            log=log, sink=Sink(catalog), signer=key, writer=folder.name, clock=clock, cadence=cadence
        )
        for number, tenant in enumerate(tenants):
            await durable(log.append("outcome", Trace(id=f"rec-{number}", tenant=tenant, status=200)))
        await heads.submit()
        for number in range(more):
            await durable(
                log.append("outcome", Trace(id=f"rec-more-{number}", tenant=tenants[0], status=200))
            )
        await log.close()

    asyncio.run(run())
    return [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_bytes().splitlines()]


def ship_one(world: World, writer: str, tenant: str) -> None:
    """One record of ``tenant``, in the registry's database."""
    with tempfile.TemporaryDirectory() as folder:
        (line,) = grow(Path(folder) / writer, [tenant], world.catalog)
    world.catalog.ship_records(RecordBatch(writer=writer, first=0, lines=(line.decode(),)))
