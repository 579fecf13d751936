"""The log and its proofs."""

from collections.abc import Iterator

from registry.catalog import log, tenants
from registry.catalog.audit import Progress, audit, no_progress
from registry.catalog.local.part import Part
from registry.errors import InvalidInput
from registry.log.entries import Entry
from registry.log.handovers import KeyHistory
from registry.log.statements import Consistency, Inclusion
from registry.log.verify import Fault
from registry.models import PublicKey
from registry.signing.envelope import Envelope

MAX_PAGE = 10_000


class Log(Part):
    def entries(self, start: int = 0, limit: int = 100, *, tenant: str | None = None) -> tuple[Entry, ...]:
        """From index ``start`` on; ``tenant``: only its own. Raises TenantNotFound."""
        if start < 0 or not 0 <= limit <= MAX_PAGE:
            raise InvalidInput(f"entries start at 0 and come at most {MAX_PAGE} at a time")
        with self._database.read() as rows:
            if tenant is not None:
                tenants.require(rows, tenant)
            return rows.log.entries(start, limit, tenant=tenant)

    def head(self, size: int | None = None) -> Envelope:
        """The newest signed head, or the one over exactly ``size`` entries. Raises HeadNotFound."""
        with self._database.read() as rows:
            return log.head(rows, size)

    def heads(self, *, after: int = 0, limit: int | None = None) -> tuple[Envelope, ...]:
        """All over more than ``after`` entries, oldest first."""
        with self._database.read() as rows:
            return rows.log.heads(after=after, limit=limit)

    def inclusion(self, index: int, size: int | None = None) -> Inclusion:
        """That an entry is in the log as it was at ``size`` entries (None: now). Raises EntryNotFound."""
        with self._database.read() as rows:
            return log.inclusion(rows, index, size)

    def consistency(self, first: int, second: int | None = None) -> Consistency:
        """That the log at ``second`` entries (None: now) only continues the one at ``first``."""
        with self._database.read() as rows:
            return log.consistency(rows, first, second)

    def key_history(self) -> KeyHistory:
        """How the log key changed, up to the newest head. Raises HeadNotFound."""
        with self._database.read() as rows:
            return log.key_history(rows)

    def export_log(self, tenant: str) -> Iterator[bytes]:
        """The tenant's entries as lines that prove themselves, see :mod:`registry.log.export`.

        Raises TenantNotFound.
        """
        return log.export(self._database, tenant, log_key=self._log_key)

    def log_key(self) -> PublicKey:
        """The key that signs heads now, by what the log says."""
        with self._database.read() as rows:
            return log.in_force(rows) or self._log_key

    def verify(
        self, *, blobs: bool = False, state: bool = True, progress: Progress = no_progress
    ) -> list[Fault]:
        """Every fault of the log, its heads, the tables and (on request) the blobs; empty means intact.

        Without ``state`` the log and its heads alone, which takes a fifth of the time.
        """
        with self._database.read() as rows:
            kept = self._blobs if blobs else None
            trusted = {self._log_key.id: self._log_key}
            return audit(rows, trusted=trusted, blobs=kept, state=state, progress=progress)
