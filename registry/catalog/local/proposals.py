"""Moves of aliases that somebody else has to approve."""

from registry.catalog import proposals, protections, tenants
from registry.catalog.local.part import Part
from registry.catalog.moves import Move
from registry.digests import Digest
from registry.evidence import GatePolicy
from registry.names import LIVE, AdapterName
from registry.promotions import Proposal, Protection
from registry.signing.envelope import Envelope


class Proposals(Part):
    def propose(
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
        actor: str,
    ) -> Proposal:
        """See :func:`registry.catalog.proposals.propose`."""
        move = Move(name, alias, version, gate, percent, expect_epoch, release, expires_at)
        with self._change_by(actor) as change:
            return proposals.propose(change, move, entropy=self._entropy)

    def approve(self, proposal: str, *, require_ready: bool = False, actor: str) -> Proposal:
        """``require_ready``: as in :meth:`promote`, if this approval is the last one that was missing.
        See :func:`registry.catalog.proposals.approve`."""
        readiness = None
        if require_ready:
            asked = self.proposal(proposal)
            name = AdapterName(asked.tenant, asked.adapter)
            readiness = self._following.readiness(name, asked.alias, asked.version)
        with self._change_by(actor) as change:
            return proposals.approve(change, proposal, readiness=readiness)

    def reject(self, proposal: str, *, reason: str, actor: str) -> Proposal:
        """Raises ProposalNotFound, ProposalClosed."""
        with self._change_by(actor) as change:
            return proposals.reject(change, proposal, reason=reason)

    def proposal(self, proposal: str) -> Proposal:
        """Raises ProposalNotFound."""
        with self._database.read() as rows:
            return proposals.get(rows, proposal)

    def proposals(
        self, tenant: str, *, after: str | None = None, limit: int | None = None
    ) -> tuple[Proposal, ...]:
        """Oldest first. Raises TenantNotFound."""
        with self._database.read() as rows:
            tenants.require(rows, tenant)
            return rows.proposals.of(tenant, after=after, limit=limit)

    def protect(self, protection: Protection, *, actor: str) -> None:
        """Raises TenantNotFound, ProtectionWeakened."""
        with self._change_by(actor) as change:
            protections.protect(change, protection)

    def protections(self, tenant: str) -> tuple[Protection, ...]:
        """Raises TenantNotFound."""
        with self._database.read() as rows:
            tenants.require(rows, tenant)
            return rows.protections.of(tenant)
