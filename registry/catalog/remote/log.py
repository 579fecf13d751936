"""The log, from afar: everything that is shown of it can be checked here."""

from collections.abc import Iterator
from itertools import islice

from registry.catalog.remote.pages import items, listed
from registry.catalog.remote.part import Part
from registry.catalog.remote.wire import Query, read
from registry.log.entries import Entry
from registry.log.handovers import KeyHistory
from registry.log.statements import Consistency, Inclusion
from registry.signing.envelope import Envelope


class Log(Part):
    def entries(self, start: int = 0, limit: int = 100, *, tenant: str | None = None) -> tuple[Entry, ...]:
        """From index ``start`` on; ``tenant``: only its own. Raises TenantNotFound."""
        path = "/log/entries" if tenant is None else self._of(tenant, "log")
        return tuple(read(Entry, item) for item in islice(items(self._wire, path, {"start": start}), limit))

    def head(self, size: int | None = None) -> Envelope:
        """The newest signed head, or the one over exactly ``size`` entries. Raises HeadNotFound."""
        return read(Envelope, self._wire.get("/log/head", _sized({}, "size", size)))

    def heads(self, *, after: int = 0, limit: int | None = None) -> tuple[Envelope, ...]:
        """All over more than ``after`` entries, oldest first."""
        return listed(self._wire, "/log/heads", Envelope, after=after, limit=limit)

    def inclusion(self, index: int, size: int | None = None) -> Inclusion:
        """That an entry is in the log as it was at ``size`` entries (None: now). Raises EntryNotFound."""
        return read(Inclusion, self._wire.get("/log/inclusion", _sized({"index": index}, "size", size)))

    def consistency(self, first: int, second: int | None = None) -> Consistency:
        """That the log at ``second`` entries (None: now) only continues the one at ``first``."""
        query = _sized({"first": first}, "second", second)
        return read(Consistency, self._wire.get("/log/consistency", query))

    def key_history(self) -> KeyHistory:
        """How the log key changed, up to the newest head. Raises HeadNotFound."""
        return read(KeyHistory, self._wire.get("/log/key-history"))

    def export_log(self, tenant: str) -> Iterator[bytes]:
        """The tenant's entries as lines that prove themselves: check them. Raises TenantNotFound."""
        with self._wire.stream(self._of(tenant, "log", "export")) as pieces:
            yield from pieces


def _sized(query: dict[str, str | int], name: str, size: int | None) -> Query:
    return query if size is None else {**query, name: size}
