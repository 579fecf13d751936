"""What the nouns of the catalog share: the database, the blobs beside it, the clock, the key of the log."""

import copy
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Self

from registry.catalog.answers import Answers
from registry.catalog.change import Change, changing
from registry.catalog.intake import Intake
from registry.catalog.readiness import Following
from registry.clock import Clock, RatchetClock, stamp
from registry.errors import InvalidInput
from registry.ports import Blobs
from registry.signing.keys import Signer
from registry.store.port import Store
from registry.store.transaction import Transaction


class Part:
    """One noun's calls: :class:`~registry.catalog.local.catalog.LocalCatalog` is all of them together."""

    def __init__(
        self,
        *,
        database: Store,
        blobs: Blobs,
        signer: Signer,
        clock: Clock,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
        max_rank: int = 64,
    ) -> None:
        """Raises WorkspaceNotFound or SchemaOutdated; ``signer`` must have the role ``log``."""
        if signer.role != "log":
            raise InvalidInput(f"the catalog signs heads with a log key, not with a {signer.role} key")
        database.check()
        self._database = database
        self._blobs = blobs
        self._signer = signer
        self._log_key = signer.public
        self._clock = RatchetClock(clock)
        self._write = changing(database, signer=signer, clock=self._clock, entropy=entropy)
        self._entropy = entropy
        self._intake = Intake(database, blobs, self._change_by, max_rank)
        self._following = Following(database, self._clock)

    def within(self, tenant: str) -> Self:
        """The same catalog, where every transaction sees one tenant's rows only (PostgreSQL; SQLite has no
        such wall). Costs nothing: make it for each request. Raises InvalidName."""
        scoped = copy.copy(self)
        scoped._database = self._database.within(tenant)
        scoped._write = changing(
            scoped._database, signer=self._signer, clock=self._clock, entropy=self._entropy
        )
        scoped._intake = Intake(scoped._database, self._blobs, scoped._change_by, self._intake.max_rank)
        return scoped

    def _change_by(self, actor: str) -> AbstractContextManager[Change]:
        return self._write(actor)  # whose signer a rotation replaces

    def _now(self, rows: Transaction) -> str:
        """As a change would see it: a clock that was set back revives nothing."""
        return max(stamp(self._clock.now()), rows.log.last_at())

    @property
    def max_rank(self) -> int:
        """Of an adapter that is taken."""
        return self._intake.max_rank

    @property
    def answers(self) -> Answers:
        """What repeated requests are answered."""
        return Answers(self._database, self._clock)
