"""The first half of a promotion: engines are told to load a version, and say when they hold it."""

from datetime import datetime, timedelta

from registry.catalog import moves
from registry.catalog.change import Change
from registry.catalog.errors import PromotionNotReady
from registry.catalog.moves import Move, subject
from registry.catalog.projection import PROMOTION_PREPARED
from registry.clock import stamp
from registry.errors import InvalidInput
from registry.names import Ref
from registry.promotions import Preparation, Readiness, in_force

DOWN = "start the engines (tenon fleet shows them), or move without waiting for them: --no-wait"
TOO_LARGE = (
    "start an engine for its rank (TENON_MAX_LORA_RANK, maxLoraRank in the chart), or train with a smaller r"
)
TOO_SMALL = (
    "engines start afresh for its rank, one after the other, while others serve what they serve: wait longer "
    "(--wait); one that stays as it is says why in waits_for of its /state"
)
ALONE = (
    "no other engine could serve meanwhile what these serve, so they do not start afresh for its rank by "
    "themselves: start another engine beside them, or these again when it suits"
)
MAX_SECONDS = 3600.0
"""An engine's place is held so long for nobody, at most."""


def prepare(change: Change, move: Move, *, judge: bool, seconds: float) -> Preparation:
    """Nothing moves. ``judge``: the gate is asked now, so that nobody waits for what it refuses.

    Takes the place of whatever else was being prepared for the alias. Raises what a promotion of it would:
    VersionNotFound, VersionRevoked, VersionUnfingerprinted, AliasMoved, CanaryInvalid, ExpiryInvalid,
    AliasNotFound, GateRefused; never for want of an approval or a signature: these guard what moves.
    """
    if not 0 < seconds <= MAX_SECONDS:
        raise InvalidInput(f"a preparation lasts at most {MAX_SECONDS:g} seconds")
    now, _ = moves.drafted(change, move)
    if judge:
        moves.judged(change.rows, move)
    epoch = now.epoch if now else 0
    preparation = Preparation(
        tenant=move.name.tenant,
        adapter=move.name.adapter,
        alias=move.alias,
        version=move.version,
        epoch=epoch,
        until=stamp(datetime.fromisoformat(change.now) + timedelta(seconds=seconds)),
    )
    known = change.rows.preparations.get(move.name, move.alias)
    if (
        known is not None
        and known.version == move.version
        and in_force(known, epoch=epoch, now=change.now)
        and known.until >= preparation.until
    ):
        return known
    body = {"preparation": preparation.model_dump(mode="json")}
    change.write(PROMOTION_PREPARED, subject(move.name, move.alias), body)
    return preparation


def require(where: Ref, readiness: Readiness | None) -> None:
    """Raises PromotionNotReady; None asks for nothing."""
    if readiness is None or readiness.ready:
        return
    if readiness.wanted:
        lacking = readiness.wanted - readiness.attested
        what = f"{lacking} of {readiness.wanted} engines do not hold {readiness.version.short} yet"
    elif readiness.because == "rank":
        what = f"no engine is for adapters of the rank of {readiness.version.short}"
    elif readiness.engines:
        what = f"no engine has room for {readiness.version.short}"
    else:
        what = f"{readiness.version.short} is attested nowhere, for all engines of its base are down"
    raise PromotionNotReady(
        f"{where} stays where it is: {what}",
        hint=advice(readiness),
        wanted=readiness.wanted,
        attested=readiness.attested,
    )


def advice(readiness: Readiness) -> str | None:
    """What to do about the engines; None: wait for them."""
    if readiness.because == "rank":
        return TOO_LARGE
    if readiness.grow:
        return ALONE if readiness.alone else TOO_SMALL
    return None if readiness.engines else DOWN
