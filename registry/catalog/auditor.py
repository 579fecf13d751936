"""A registry as an auditor sees it: everything can be read and checked, and no private key is needed."""

from collections.abc import Mapping
from dataclasses import dataclass

from registry.catalog import log, records
from registry.catalog.audit import Progress, audit, no_progress
from registry.log.handovers import KeyHistory
from registry.log.statements import Consistency
from registry.log.verify import Fault
from registry.models import PublicKey
from registry.ports import Blobs
from registry.signing.envelope import Envelope
from registry.store.port import Store


@dataclass(frozen=True, slots=True)
class Auditor:
    store: Store
    blobs: Blobs

    def verify(
        self,
        log_keys: Mapping[str, PublicKey],
        *,
        blobs: bool,
        state: bool,
        progress: Progress = no_progress,
    ) -> list[Fault]:
        """``log_keys``: those that count. See :func:`registry.catalog.audit.audit`."""
        with self.store.read() as rows:
            kept = self.blobs if blobs else None
            return audit(rows, trusted=log_keys, blobs=kept, state=state, progress=progress)

    def log_size(self) -> int:
        with self.store.read() as rows:
            return rows.log.size()

    def key_history(self) -> KeyHistory:
        """Raises HeadNotFound."""
        with self.store.read() as rows:
            return log.key_history(rows)

    def consistency(self, first: int, second: int | None = None) -> Consistency:
        """Raises InvalidInput."""
        with self.store.read() as rows:
            return log.consistency(rows, first, second)

    def signers(self) -> dict[str, PublicKey]:
        """Trusted now, by what the tables say: :meth:`verify` says whether they say what the log does."""
        with self.store.read() as rows:
            return rows.signers.all()

    def record_heads(self) -> tuple[Envelope, ...]:
        with self.store.read() as rows:
            return records.heads(rows)
