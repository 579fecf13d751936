"""Aliases, from afar: every move names the epoch that its caller saw, if it names one."""

from collections.abc import Sequence
from typing import Any

from registry.catalog.aliases import AliasMove
from registry.catalog.errors import ProposalNotFound
from registry.catalog.remote.pages import listed
from registry.catalog.remote.part import Part
from registry.catalog.remote.wire import member, read
from registry.digests import Digest
from registry.evidence import GatePolicy, Verdict
from registry.models import AliasState
from registry.names import LIVE, AdapterName
from registry.promotions import Preparation, Proposal, Protection, Readiness, WayBack
from registry.signing.envelope import Envelope


class Aliases(Part):
    def aliases(self, name: AdapterName) -> tuple[AliasState, ...]:
        """By alias."""
        return listed(self._wire, self._at(name, "aliases"), AliasState)

    def alias(self, name: AdapterName, alias: str = LIVE) -> AliasState:
        """Raises AliasNotFound."""
        return read(AliasState, self._wire.get(self._at(name, "aliases", alias)))

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
        """See :meth:`registry.catalog.local.aliases.Aliases.promote`. Raises ApprovalRequired, …"""
        body = _move(version, gate, percent, release, expires_at) | {"propose": False}
        if require_ready:  # a registry of before does not know the word
            body["require_ready"] = True
        answer = self._promotions(name, alias, body, expect_epoch)
        return read(Verdict, member(answer, "verdict"))

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
        """A promotion that waits for other people's approval. Raises GateRefused, AliasMoved …"""
        body = _move(version, gate, percent, release, expires_at) | {"propose": True}
        answer = self._promotions(name, alias, body, expect_epoch)
        proposal = read(Proposal, member(answer, "proposal"))
        self._homes.proposals[proposal.id] = proposal.tenant
        return proposal

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
        """Engines load the version, and nothing moves. Raises VersionNotFound, AliasMoved, GateRefused …"""
        body = {
            "version": version,
            "gate": None if gate is None else gate.model_dump(mode="json"),
            "percent": percent,
            "seconds": seconds,
        }
        at = self._at(name, "aliases", alias, "preparations")
        return read(Preparation, self._wire.post(at, body, headers=_if_match(expect_epoch)))

    def readiness(self, name: AdapterName, version: Digest, *, alias: str = LIVE) -> Readiness:
        """Engines by name only for the platform. Raises VersionNotFound."""
        return read(Readiness, self._wire.get(self._at(name, "aliases", alias, "preparations", version)))

    def way_back(self, name: AdapterName, *, alias: str = LIVE) -> WayBack:
        """Raises AliasNotFound, NothingToRollBack."""
        return read(WayBack, self._wire.get(self._at(name, "aliases", alias, "rollback")))

    def rollback(
        self,
        name: AdapterName,
        *,
        alias: str = LIVE,
        expect_epoch: int | None = None,
        require_ready: bool = False,
        actor: str,
    ) -> AliasState:
        """Raises AliasNotFound, NothingToRollBack, AliasMoved; with ``require_ready``, PromotionNotReady."""
        at, headers = self._at(name, "aliases", alias, "rollback"), _if_match(expect_epoch)
        query = {"require_ready": "true"} if require_ready else {}
        return read(AliasState, self._wire.call("POST", at, json={}, query=query, headers=headers).json())

    def shadow(
        self,
        name: AdapterName,
        versions: Sequence[Digest],
        *,
        alias: str = LIVE,
        expect_epoch: int | None = None,
        actor: str,
    ) -> AliasState:
        """These versions get copies of requests; none: nobody does. Raises AliasNotFound, AliasMoved."""
        answer = self._wire.call(
            "PUT",
            self._at(name, "aliases", alias, "shadows"),
            json={"versions": list(versions)},
            headers=_if_match(expect_epoch),
        )
        return read(AliasState, answer.json())

    def history(
        self, name: AdapterName, alias: str = LIVE, *, after: int | None = None, limit: int | None = None
    ) -> tuple[AliasMove, ...]:
        """Oldest first; empty for an alias that never was; ``after``: the entry of a move."""
        at = self._at(name, "aliases", alias, "history")
        return listed(self._wire, at, AliasMove, after=after, limit=limit)

    def approve(
        self, proposal: str, *, require_ready: bool = False, actor: str, tenant: str | None = None
    ) -> Proposal:
        """With enough approvals the alias moves. Raises ProposalNotFound, ApprovalRefused, GateRefused."""
        return self._decide(proposal, "approve", {}, tenant, require_ready=require_ready)

    def reject(self, proposal: str, *, reason: str, actor: str, tenant: str | None = None) -> Proposal:
        """Raises ProposalNotFound."""
        return self._decide(proposal, "reject", {"reason": reason}, tenant)

    def proposal(self, proposal: str, *, tenant: str | None = None) -> Proposal:
        """Raises ProposalNotFound."""
        for found in self.proposals(self._proposal_home(proposal, tenant)):
            if found.id == proposal:
                return found
        raise ProposalNotFound(f"there is no proposal {proposal[:80]!r}")

    def proposals(
        self, tenant: str, *, after: str | None = None, limit: int | None = None
    ) -> tuple[Proposal, ...]:
        """Oldest first. Raises TenantNotFound."""
        at = self._of(tenant, "proposals")
        found = listed(self._wire, at, Proposal, after=after, limit=limit)
        self._homes.proposals.update({proposal.id: tenant for proposal in found})
        return found

    def protect(self, protection: Protection, *, actor: str) -> None:
        """Raises TenantNotFound."""
        at = self._of(protection.tenant, "protections", protection.alias)
        body = {"approvals": protection.approvals, "release_signature": protection.release_signature}
        self._wire.call("PUT", at, json=body)

    def protections(self, tenant: str) -> tuple[Protection, ...]:
        """Raises TenantNotFound."""
        return listed(self._wire, self._of(tenant, "protections"), Protection)

    def _promotions(
        self, name: AdapterName, alias: str, body: dict[str, Any], expect_epoch: int | None
    ) -> Any:
        at = self._at(name, "aliases", alias, "promotions")
        return self._wire.post(at, body, headers=_if_match(expect_epoch))

    def _decide(
        self,
        proposal_id: str,
        verb: str,
        body: dict[str, Any],
        tenant: str | None,
        *,
        require_ready: bool = False,
    ) -> Proposal:
        whose = self._proposal_home(proposal_id, tenant)
        query = {"require_ready": "true"} if require_ready else {}
        at = self._of(whose, "proposals", proposal_id, verb)
        return read(Proposal, self._wire.call("POST", at, json=body, query=query).json())

    def _proposal_home(self, proposal_id: str, tenant: str | None) -> str:
        known = tenant or self._homes.proposals.get(proposal_id) or self.whoami().tenant
        if known is None:
            raise ProposalNotFound(
                f"whose is {proposal_id[:80]!r}?", hint="list that tenant's proposals first"
            )
        return known


def _move(
    version: Digest, gate: GatePolicy, percent: float, release: Envelope | None, expires_at: str | None
) -> dict[str, Any]:
    return {
        "version": version,
        "gate": gate.model_dump(mode="json"),
        "percent": percent,
        "release": None if release is None else release.model_dump(mode="json"),
        "expires_at": expires_at,
    }


def _if_match(epoch: int | None) -> dict[str, str]:
    """An alias that does not exist yet has epoch 0."""
    return {} if epoch is None else {"If-Match": f'"{epoch}"'}
