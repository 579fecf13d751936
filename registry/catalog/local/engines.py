"""Engines, and what they were seen to serve."""

from registry.catalog import engines, failures
from registry.catalog.fleet import Fleet, explained, fleet, strengths, unattested
from registry.catalog.isolation import state_of
from registry.catalog.local.part import Part
from registry.digests import Digest
from registry.models import EngineState, Slot
from registry.signing.envelope import Envelope


class Engines(Part):
    def announce(self, state: EngineState, *, actor: str) -> None:
        """Raises BaseNotFound, EngineReplaced, EngineHeld, AnnouncementInvalid."""
        with self._database.read() as rows:  # a heartbeat must not queue with the writers
            if rows.engines.get(state.engine) == state:
                return
        with self._change_by(actor) as change:
            engines.announce(change, state)

    def announce_signed(self, envelope: Envelope, *, actor: str) -> None:
        """See :func:`registry.catalog.engines.announce_signed`."""
        with self._change_by(actor) as change:
            engines.announce_signed(change, envelope)

    def engine(self, name: str) -> EngineState | None:
        with self._database.read() as rows:
            return rows.engines.get(name)

    def engines(self) -> tuple[EngineState, ...]:
        """All that ever announced themselves, by name."""
        with self._database.read() as rows:
            return rows.engines.all()

    def slots(self, version: Digest | None = None) -> tuple[Slot, ...]:
        """What was seen to be served, and where; of one version when it is named."""
        with self._database.read() as rows:
            return rows.engines.slots(version)

    def fleet(self) -> Fleet:
        """All engines, what they hold, and for whom."""
        now = self._clock.now()
        with self._database.read() as rows:
            state, strength = state_of(rows), strengths(rows)
        found = fleet(state, now, strength)
        if not (sought := unattested(found)):
            return found
        with self._database.read() as rows:
            return explained(found, failures.reasons(rows, sought))

    def attest(self, envelope: Envelope, *, actor: str) -> Digest:
        """Raises SignatureInvalid, EngineNotFound, EngineReplaced, EngineDown, VersionNotFound,
        VersionRevoked, AttestationInvalid."""
        with self._change_by(actor) as change:
            return engines.attest(change, envelope)

    def withdraw(self, envelope: Envelope, *, actor: str) -> None:
        """See :func:`registry.catalog.engines.withdraw`."""
        with self._change_by(actor) as change:
            engines.withdraw(change, envelope)
