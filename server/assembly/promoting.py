"""Move an alias, or ask for the consent that moving it needs."""

from dataclasses import dataclass
from pathlib import Path

from registry.catalog.errors import ApprovalRequired
from registry.digests import Digest
from registry.errors import AliasNotFound, InvalidInput
from registry.evidence import GatePolicy, Verdict
from registry.names import AdapterName
from registry.promotions import Proposal, Release
from registry.signing.envelope import Envelope
from registry.signing.keys import Signer
from registry.signing.types import RELEASE
from server.assembly.awaiting import Goal, Patience, when_ready
from server.assembly.place import Catalog


@dataclass(frozen=True, slots=True)
class Move:
    name: AdapterName
    version: Digest
    gate: GatePolicy
    alias: str
    percent: float
    expect_epoch: int | None
    expires_at: str | None


@dataclass(frozen=True, slots=True)
class Moved:
    """Exactly one of the two: a verdict that let the alias move, or a proposal that waits."""

    verdict: Verdict | None
    proposal: Proposal | None


def promote_or_propose(
    catalog: Catalog, move: Move, *, release_key: Path | None, patience: Patience | None = None, actor: str
) -> Moved:
    """``patience``: the alias moves once all engines that are to hold the version do; None: at once.

    A proposal waits for people and not for engines: its last approval does that (:func:`approve`). Raises
    what the catalog's promote raises, but for ApprovalRequired.
    """
    release = _signed(catalog, move, release_key) if release_key else None

    def commit(epoch: int | None) -> Verdict:
        return catalog.promote(
            move.name,
            move.version,
            gate=move.gate,
            alias=move.alias,
            percent=move.percent,
            expect_epoch=epoch,
            release=release,
            expires_at=move.expires_at,
            require_ready=patience is not None,
            actor=actor,
        )

    goal = Goal(move.name, move.version, move.alias, move.percent, move.gate, move.expect_epoch)
    try:
        if patience is None:
            verdict = commit(move.expect_epoch)
        else:
            verdict = when_ready(catalog, goal, patience, commit, actor=actor)
    except ApprovalRequired:
        proposal = catalog.propose(
            move.name,
            move.version,
            gate=move.gate,
            alias=move.alias,
            percent=move.percent,
            expect_epoch=move.expect_epoch,
            release=release,
            expires_at=move.expires_at,
            actor=actor,
        )
        return Moved(None, proposal)
    return Moved(verdict, None)


def approve(catalog: Catalog, proposal: Proposal, *, patience: Patience | None, actor: str) -> Proposal:
    """The approval that moves the alias does so once the engines hold the version; any other one waits for
    nothing. Raises what the catalog's approve raises; PromotionNotReady, and then it has not happened."""

    def commit(epoch: int | None) -> Proposal:
        return catalog.approve(proposal.id, require_ready=patience is not None, actor=actor)

    if patience is None:
        return commit(None)
    goal = Goal(
        name=AdapterName(proposal.tenant, proposal.adapter),
        version=proposal.version,
        alias=proposal.alias,
        percent=proposal.percent,
        gate=proposal.gate,
        expect_epoch=proposal.epoch,
    )
    return when_ready(catalog, goal, patience, commit, actor=actor)


def _signed(catalog: Catalog, move: Move, release_key: Path) -> Envelope:
    """For this move from this epoch: used once, it is worth nothing."""
    key = Signer.load(release_key)
    if key.role != "release":
        raise InvalidInput(f"a move is signed by a release key, and this is a {key.role} key")
    release = Release(
        tenant=move.name.tenant,
        adapter=move.name.adapter,
        alias=move.alias,
        version=move.version,
        percent=move.percent,
        expires_at=move.expires_at,
        epoch=_epoch(catalog, move) if move.expect_epoch is None else move.expect_epoch,
    )
    return key.sign(RELEASE, release.canonical())


def _epoch(catalog: Catalog, move: Move) -> int:
    try:
        return catalog.alias(move.name, move.alias).epoch
    except AliasNotFound:
        return 0
