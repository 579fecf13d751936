"""Promotions that need other people: proposed by one, approved by others, then carried out at once."""

from collections.abc import Callable

from registry.catalog import aliases, moves, protections
from registry.catalog.change import Change
from registry.catalog.errors import ApprovalRefused, ApprovalUnneeded, ProposalClosed, ProposalNotFound
from registry.catalog.moves import Move
from registry.catalog.people import independent
from registry.catalog.preparations import require
from registry.catalog.projection import PROMOTION_APPROVED, PROMOTION_PROPOSED, PROMOTION_REJECTED
from registry.catalog.tenants import check_reason
from registry.names import AdapterName, Ref
from registry.promotions import Proposal, Readiness
from registry.store.transaction import Transaction


def propose(change: Change, move: Move, *, entropy: Callable[[int], bytes]) -> Proposal:
    """Raises what a promotion raises, and ApprovalUnneeded for an alias that needs none. Proposing the same
    again returns the proposal that is open."""
    ready = moves.check(change, move)
    if not protections.needed(change.rows, move.name.tenant, move.alias).approvals:
        raise ApprovalUnneeded(f"{Ref(move.name, alias=move.alias)} needs no approval")
    proposal = Proposal(
        id=entropy(8).hex(),
        tenant=move.name.tenant,
        adapter=move.name.adapter,
        alias=move.alias,
        version=move.version,
        percent=move.percent,
        expires_at=ready.wanted.expires_at if move.percent == 100 else None,
        epoch=ready.now.epoch if ready.now else 0,
        gate=move.gate,
        release=move.release,
        proposed_by=change.actor,
        proposed_at=change.now,
    )
    for known in change.rows.proposals.open(move.name, move.alias):
        if _same(known, proposal):
            return known
    body = {
        "proposal": proposal.model_dump(mode="json"),
        "verdict": ready.verdict.identity(),
        "verdict_body": ready.verdict.model_dump(mode="json"),
    }
    change.write(PROMOTION_PROPOSED, proposal.id, body)
    return proposal


def approve(change: Change, proposal_id: str, *, readiness: Readiness | None = None) -> Proposal:
    """With enough approvals the gate is asked again and the alias moves, in the same transaction: if the gate
    refuses now, this approval has not happened.

    Raises ProposalNotFound, ProposalClosed, ApprovalRefused, and what a promotion raises: with ``readiness``
    PromotionNotReady, if this is the approval that moves the alias.
    """
    proposal = get(change.rows, proposal_id)
    _check_open(proposal)
    for known in (proposal.proposed_by, *proposal.approved_by):
        if not independent(change.rows, change.actor, known):
            raise ApprovalRefused(f"{change.actor} is not independent of {known}", actor=known)
    approved = (*proposal.approved_by, change.actor)
    needed = protections.needed(change.rows, proposal.tenant, proposal.alias).approvals
    done = len(approved) >= needed
    # Checked before anything is written, and with the epoch that was seen when it was proposed.
    move = _move(proposal)
    ready = moves.check(change, move) if done else None
    if ready is not None:
        require(Ref(move.name, alias=move.alias), readiness)
    changed = proposal.model_copy(update={"approved_by": approved, "state": "done" if done else "open"})
    change.write(PROMOTION_APPROVED, proposal.id, {"proposal": changed.model_dump(mode="json")})
    if ready is not None:
        aliases.carry_out(change, move, ready, proposal=proposal.id)
    return changed


def reject(change: Change, proposal_id: str, *, reason: str) -> Proposal:
    """Anybody may, who proposed it too. Raises ProposalNotFound, ProposalClosed."""
    check_reason(reason)
    proposal = get(change.rows, proposal_id)
    _check_open(proposal)
    changed = proposal.model_copy(update={"state": "rejected"})
    body = {"proposal": changed.model_dump(mode="json"), "reason": reason}
    change.write(PROMOTION_REJECTED, proposal.id, body)
    return changed


def get(rows: Transaction, proposal_id: str) -> Proposal:
    found = rows.proposals.get(proposal_id)
    if found is None:
        raise ProposalNotFound(f"there is no proposal {proposal_id[:80]!r}")
    return found


def _check_open(proposal: Proposal) -> None:
    if proposal.state != "open":
        ended = {"done": "was carried out", "rejected": "was rejected", "void": "is void: the alias moved"}
        raise ProposalClosed(f"the proposal {proposal.id} {ended[proposal.state]}", state=proposal.state)


def _move(proposal: Proposal) -> Move:
    return Move(
        name=AdapterName(proposal.tenant, proposal.adapter),
        alias=proposal.alias,
        version=proposal.version,
        gate=proposal.gate,
        percent=proposal.percent,
        expect_epoch=proposal.epoch,
        release=proposal.release,
        expires_at=proposal.expires_at,
    )


def _same(known: Proposal, proposal: Proposal) -> bool:
    own = {"id": known.id, "proposed_at": known.proposed_at, "approved_by": known.approved_by}
    return proposal.model_copy(update=own) == known
