"""Records into the registry's database: over HTTP from beside a router, or on the registry's own machine."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from registry.shipping import MOST_LINES, KnownHead, RecordBatch, Stored
from registry.usage import UsageCounted
from server.api.client import ControlClient
from server.shipping.ship import Begun


class Catalog(Protocol):
    def ship_records(self, batch: RecordBatch) -> Stored: ...
    def records_stored(self, writer: str) -> Stored: ...


@dataclass(frozen=True, slots=True)
class Registry:
    """A ``server.shipping.ship.Place``. The registry checks the chain again, against the head that it has."""

    catalog: Catalog

    @property
    def name(self) -> str:
        return "registry"

    def begin(self, writer: str) -> Begun:
        stored = self.catalog.records_stored(writer)
        return Begun(stored.next, stored.digest)

    def add(self, writer: str, first: int, lines: Sequence[bytes]) -> None:
        for at in range(0, len(lines), MOST_LINES):
            piece = tuple(line.decode() for line in lines[at : at + MOST_LINES])
            self.catalog.ship_records(RecordBatch(writer=writer, first=first + at, lines=piece))


class OverHttp:
    """The catalog of a control plane, with the service token. Use as ``with``."""

    def __init__(self, url: str, token: str) -> None:
        self._client = ControlClient(url, token)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def ship_records(self, batch: RecordBatch) -> Stored:
        return self._runner.run(self._client.ship(batch))

    def records_stored(self, writer: str) -> Stored:
        return self._runner.run(self._client.stored(writer))

    def record_head_known(self, writer: str) -> KnownHead:
        return self._runner.run(self._client.known(writer))

    def usage_counted(self, writer: str) -> UsageCounted:
        return UsageCounted(writer=writer, seq=self._runner.run(self._client.counted(writer)))
