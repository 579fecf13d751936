"""Move aliases: promote after a verdict, to everybody or to a share; shadow; roll back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from registry.catalog import moves, protections
from registry.catalog.change import Change
from registry.catalog.errors import ApprovalRequired, PromotionNotReady, ShadowInvalid
from registry.catalog.moves import Move, subject
from registry.catalog.preparations import require
from registry.catalog.projection import ALIAS_MOVED, PROMOTION_VOIDED
from registry.catalog.way_back import step_back
from registry.digests import Digest
from registry.errors import AliasMoved, AliasNotFound
from registry.evidence import Verdict
from registry.models import AliasState, Canary
from registry.names import AdapterName, Ref
from registry.promotions import Readiness
from registry.store.tables.versions import StoredVersion
from registry.store.transaction import Transaction

Cause: TypeAlias = Literal["promotion", "canary", "shadow", "rollback", "revocation"]
MAX_SHADOWS = 4
"""Every one of them doubles the work of each request."""


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One move, as the log has it."""

    entry: int
    at: str
    actor: str
    epoch: int
    version: Digest
    previous: Digest | None
    cause: Cause
    verdict: Digest | None
    """Of the verdict that allowed it: for a roll back, the one of its promotion; None for what needs none."""
    canaries: tuple[Canary, ...] = ()
    shadows: tuple[Digest, ...] = ()
    expires_at: str | None = None
    proposal: str | None = None
    """The one that was approved."""


def promote(change: Change, move: Move, *, readiness: Readiness | None = None) -> Verdict:
    """Raises VersionNotFound, VersionRevoked, VersionUnfingerprinted, AliasMoved, AliasNotFound (a canary
    beside nothing), CanaryInvalid, ExpiryInvalid, ApprovalRequired, ReleaseSignatureRequired,
    SignatureInvalid, GateRefused (with the verdict in its facts); nothing has moved then. Promoting what the
    alias already shows changes nothing. With ``readiness``, PromotionNotReady too.
    """
    ready = moves.check(change, move)
    needed = protections.needed(change.rows, move.name.tenant, move.alias).approvals
    if needed:
        raise ApprovalRequired(
            f"{Ref(move.name, alias=move.alias)} moves only with {needed} approval{'s' * (needed > 1)}",
            approvals=needed,
        )
    carry_out(change, move, ready, readiness=readiness)
    return ready.verdict


def carry_out(
    change: Change,
    move: Move,
    ready: moves.Ready,
    *,
    proposal: str | None = None,
    readiness: Readiness | None = None,
) -> None:
    if ready.now is not None and ready.wanted.model_copy(update={"epoch": ready.now.epoch}) == ready.now:
        return
    require(Ref(move.name, alias=move.alias), readiness)
    said: dict[str, Any] = {
        "verdict": ready.verdict.identity(),
        "verdict_body": ready.verdict.model_dump(mode="json"),
        "gate": move.gate.model_dump(mode="json"),
    }
    if move.release is not None:
        said["release"] = move.release.model_dump(mode="json")
    if proposal is not None:
        said["proposal"] = proposal
    cause: Cause = "promotion" if move.percent == 100 else "canary"
    _write(change, ready.wanted, now=ready.now, cause=cause, said=said)


def shadow(
    change: Change,
    name: AdapterName,
    shadows: Sequence[Digest],
    *,
    alias: str,
    expect_epoch: int | None,
) -> AliasState:
    """These versions get copies of the alias's requests, and no others do; none of them answers anybody, so
    none needs a verdict. Raises AliasNotFound, AliasMoved, VersionNotFound, VersionRevoked,
    VersionUnfingerprinted, ShadowInvalid."""
    now = current(change.rows, name, alias, expect_epoch)
    serving = {now.version, *(canary.version for canary in now.canaries)}
    wanted = tuple(sorted(set(shadows)))
    if len(wanted) > MAX_SHADOWS or serving & set(wanted):
        raise ShadowInvalid(f"at most {MAX_SHADOWS} versions that do not serve {Ref(name, alias=alias)}")
    for version in wanted:
        moves.servable(change.rows, name, version)
    if wanted == now.shadows:
        return now
    return _write(change, moves.moved(now, shadows=wanted), now=now, cause="shadow", said={})


def roll_back(
    change: Change,
    name: AdapterName,
    *,
    alias: str,
    expect_epoch: int | None,
    readiness: Readiness | None = None,
    require_ready: bool = False,
) -> AliasState:
    """Ends the canaries when there are any; else to the version that was promoted before the present one,
    was not revoked since and has not expired.

    Rolling back again goes one further: a version that was rolled back from is never returned to. Needs no
    approval and no signature: what it returns to was live, by what was asked for then.

    ``require_ready``: with PromotionNotReady unless ``readiness`` is of that version, and says that engines
    hold it; not where nobody would be the worse for it (:attr:`registry.catalog.way_back.Step.waits`).

    Raises AliasNotFound, AliasMoved, NothingToRollBack.
    """
    now = current(change.rows, name, alias, expect_epoch)
    step = step_back(change.rows, now, change.now)
    if require_ready and step.waits:
        where = Ref(name, alias=alias)
        if readiness is None or readiness.version != step.to.version:  # revoked since it was looked for
            raise PromotionNotReady(f"{where} stays where it is: another version is the one before by now")
        require(where, readiness)
    return _write(change, step.to, now=now, cause="rollback", said=step.said)


def take_out(change: Change, version: StoredVersion) -> None:
    """A revoked version ends as canary, as shadow and as the former one. As stable version it stays: nothing
    answers for it."""
    for now in change.rows.aliases.of(version.name):
        canaries = tuple(canary for canary in now.canaries if canary.version != version.digest)
        shadows = tuple(shadow for shadow in now.shadows if shadow != version.digest)
        former = None if now.former is not None and now.former.version == version.digest else now.former
        if (canaries, shadows, former) != (now.canaries, now.shadows, now.former):
            wanted = moves.moved(now, canaries=canaries, shadows=shadows, former=former)
            _write(change, wanted, now=now, cause="revocation", said={})
    for proposal in change.rows.proposals.open(version.name):
        if proposal.version == version.digest:
            _void(change, proposal.id, "the version was revoked")


def find(rows: Transaction, name: AdapterName, alias: str) -> AliasState:
    """Also one that has expired: people look at it. Raises AliasNotFound."""
    found = rows.aliases.get(name, alias)
    if found is None:
        raise AliasNotFound(f"{name}:{alias[:80]} points nowhere", hint="promote a version first")
    return found


def history(
    rows: Transaction, name: AdapterName, alias: str, *, after: int | None = None, limit: int | None = None
) -> tuple[AliasMove, ...]:
    """Oldest first; empty for an alias that never was. ``after``: the entry of a move."""
    found = []
    for entry in rows.log.about(ALIAS_MOVED, subject(name, alias), after=after, limit=limit):
        state = AliasState.build(entry.body["alias"])
        previous, verdict = entry.body["from"], entry.body.get("verdict")
        found.append(
            AliasMove(
                entry=entry.index,
                at=entry.at,
                actor=entry.actor,
                epoch=state.epoch,
                version=state.version,
                previous=Digest(previous) if previous else None,
                cause=entry.body["cause"],
                verdict=Digest(verdict) if verdict else None,
                canaries=state.canaries,
                shadows=state.shadows,
                expires_at=state.expires_at,
                proposal=entry.body.get("proposal"),
            )
        )
    return tuple(found)


def current(rows: Transaction, name: AdapterName, alias: str, expect_epoch: int | None) -> AliasState:
    """Raises AliasNotFound, AliasMoved."""
    now = find(rows, name, alias)
    if expect_epoch is not None and expect_epoch != now.epoch:
        raise AliasMoved(f"{name}:{alias} is at epoch {now.epoch}, not {expect_epoch}", epoch=now.epoch)
    return now


def _write(
    change: Change, state: AliasState, *, now: AliasState | None, cause: Cause, said: dict[str, Any]
) -> AliasState:
    name = AdapterName(state.tenant, state.adapter)
    body = {"alias": state.model_dump(mode="json"), "from": now.version if now else None, "cause": cause}
    change.write(ALIAS_MOVED, subject(name, state.alias), body | said)
    for proposal in change.rows.proposals.open(name, state.alias):
        _void(change, proposal.id, "the alias has moved")
    return state


def _void(change: Change, proposal_id: str, reason: str) -> None:
    proposal = change.rows.proposals.get(proposal_id)
    if proposal is not None:
        voided = proposal.model_copy(update={"state": "void"})
        body = {"proposal": voided.model_dump(mode="json"), "reason": reason}
        change.write(PROMOTION_VOIDED, proposal.id, body)
