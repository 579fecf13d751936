"""Aliases, and the versions that they point at."""

from collections.abc import Sequence

from registry.catalog import aliases, preparations
from registry.catalog.aliases import AliasMove
from registry.catalog.local.part import Part
from registry.catalog.moves import Move
from registry.catalog.way_back import Step, step_back
from registry.digests import Digest
from registry.errors import VersionNotFound
from registry.evidence import GatePolicy, Verdict
from registry.models import AliasState
from registry.names import LIVE, AdapterName
from registry.promotions import Preparation, Readiness, WayBack
from registry.signing.envelope import Envelope

_NO_GATE = GatePolicy(name="none", rules=())


class Aliases(Part):
    def promote(
        self,
        name: AdapterName,
        version: Digest,
        *,
        gate: GatePolicy,
        alias: str = LIVE,
        percent: float = 100,
        expect_epoch: int | None = None,
        release: Envelope | None = None,
        expires_at: str | None = None,
        require_ready: bool = False,
        actor: str,
    ) -> Verdict:
        """Less than 100 percent: a canary beside the stable version. ``require_ready``: only if all engines
        that are to hold the version do, else PromotionNotReady. See
        :func:`registry.catalog.aliases.promote`."""
        move = Move(name, alias, version, gate, percent, expect_epoch, release, expires_at)
        # Before the transaction: other changes are not to wait for this look at all engines.
        readiness = self._following.readiness(name, alias, version) if require_ready else None
        with self._change_by(actor) as change:
            return aliases.promote(change, move, readiness=readiness)

    def prepare(
        self,
        name: AdapterName,
        version: Digest,
        *,
        seconds: float,
        gate: GatePolicy | None = None,
        alias: str = LIVE,
        percent: float = 100,
        expect_epoch: int | None = None,
        actor: str,
    ) -> Preparation:
        """Engines load the version for ``seconds`` at most, and nothing moves; ``gate``: only if it passes.
        See :func:`registry.catalog.preparations.prepare`."""
        move = Move(name, alias, version, gate or _NO_GATE, percent, expect_epoch)
        with self._change_by(actor) as change:
            return preparations.prepare(change, move, judge=gate is not None, seconds=seconds)

    def readiness(self, name: AdapterName, version: Digest, *, alias: str = LIVE) -> Readiness:
        """Which engines are to hold the version if the alias moves to it, and which do. Costs little, also
        when it is asked several times a second. Raises VersionNotFound."""
        found = self._following.readiness(name, alias, version)
        if found is None:
            raise VersionNotFound(f"{name} has no version {version}")
        return found

    def shadow(
        self,
        name: AdapterName,
        versions: Sequence[Digest],
        *,
        alias: str = LIVE,
        expect_epoch: int | None = None,
        actor: str,
    ) -> AliasState:
        """See :func:`registry.catalog.aliases.shadow`."""
        with self._change_by(actor) as change:
            return aliases.shadow(change, name, versions, alias=alias, expect_epoch=expect_epoch)

    def way_back(self, name: AdapterName, *, alias: str = LIVE) -> WayBack:
        """Raises AliasNotFound, NothingToRollBack."""
        to = self._step_back(name, alias, None).to
        return WayBack(version=to.version, epoch=to.epoch - 1)

    def rollback(
        self,
        name: AdapterName,
        *,
        alias: str = LIVE,
        expect_epoch: int | None = None,
        require_ready: bool = False,
        actor: str,
    ) -> AliasState:
        """``require_ready``: only if all engines that are to hold the version do, else PromotionNotReady.
        See :func:`registry.catalog.aliases.roll_back`."""
        readiness = None
        if require_ready:  # before the transaction, as for a promotion
            step = self._step_back(name, alias, expect_epoch)
            readiness = self._following.readiness(name, alias, step.to.version) if step.waits else None
        with self._change_by(actor) as change:
            return aliases.roll_back(
                change,
                name,
                alias=alias,
                expect_epoch=expect_epoch,
                readiness=readiness,
                require_ready=require_ready,
            )

    def _step_back(self, name: AdapterName, alias: str, expect_epoch: int | None) -> Step:
        with self._database.read() as rows:
            now = aliases.current(rows, name, alias, expect_epoch)
            return step_back(rows, now, self._now(rows))

    def alias(self, name: AdapterName, alias: str = LIVE) -> AliasState:
        """Raises AliasNotFound."""
        with self._database.read() as rows:
            return aliases.find(rows, name, alias)

    def aliases(self, name: AdapterName) -> tuple[AliasState, ...]:
        with self._database.read() as rows:
            return rows.aliases.of(name)

    def history(
        self,
        name: AdapterName,
        alias: str = LIVE,
        *,
        after: int | None = None,
        limit: int | None = None,
    ) -> tuple[AliasMove, ...]:
        """Oldest first; ``after``: the entry of a move."""
        with self._database.read() as rows:
            return aliases.history(rows, name, alias, after=after, limit=limit)
