"""May this alias move so? Everything that is asked before a promotion, except other people."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from registry.catalog import keys, protections, versions
from registry.catalog.change import Change
from registry.catalog.errors import CanaryInvalid, ReleaseSignatureRequired, VersionUnfingerprinted
from registry.catalog.projection import ALIAS_MOVED, signed_payload
from registry.clock import stamp
from registry.digests import Digest
from registry.errors import (
    AliasMoved,
    AliasNotFound,
    GateRefused,
    InvalidDocument,
    SignatureInvalid,
    VersionRevoked,
)
from registry.evidence import GatePolicy, Verdict
from registry.gates.decide import decide
from registry.models import AliasState, Canary, Former
from registry.names import AdapterName, Ref, parse_name
from registry.promotions import Release
from registry.signing.envelope import Envelope
from registry.signing.types import RELEASE
from registry.store.tables.versions import StoredVersion
from registry.store.transaction import Transaction

CONVERSATIONS = timedelta(days=1)
"""For which one that began before a promotion keeps what it began with: as long as a router remembers it
(router.epochs). Without an end, a client could name an old epoch for ever and never be in a canary."""


@dataclass(frozen=True, slots=True)
class Move:
    """What somebody wants. ``expect_epoch``: the epoch that they saw, 0 for an alias that does not exist."""

    name: AdapterName
    alias: str
    version: Digest
    gate: GatePolicy
    percent: float = 100
    expect_epoch: int | None = None
    release: Envelope | None = None
    expires_at: str | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """A move that nothing speaks against."""

    now: AliasState | None
    wanted: AliasState
    verdict: Verdict


def check(change: Change, move: Move) -> Ready:
    """See :func:`registry.catalog.aliases.promote` for what it raises."""
    now, wanted = drafted(change, move)
    _check_release(change.rows, move, wanted.epoch - 1, keys.future(change, move.expires_at))
    return Ready(now, wanted, judged(change.rows, move))


def drafted(change: Change, move: Move) -> tuple[AliasState | None, AliasState]:
    """The alias as it is and as it would be; neither a gate nor anybody else was asked."""
    parse_name(move.alias, "alias")
    servable(change.rows, move.name, move.version)
    now = change.rows.aliases.get(move.name, move.alias)
    epoch = now.epoch if now else 0
    if move.expect_epoch is not None and move.expect_epoch != epoch:
        at = f"{Ref(move.name, alias=move.alias)} is at epoch {epoch}, not {move.expect_epoch}"
        raise AliasMoved(at, epoch=epoch)
    expires_at = keys.future(change, move.expires_at)
    if move.percent == 100:
        return now, _everybody(move, now, expires_at, former=_former(change, move, now))
    if expires_at is not None:
        raise CanaryInvalid("an alias expires as a whole: name the time when its stable version is promoted")
    return now, _share(move, now, change.now)


def judged(rows: Transaction, move: Move) -> Verdict:
    """Raises GateRefused."""
    verdict = decide(move.gate, version=move.version, reports=rows.versions.reports(move.version))
    if not verdict.passed:
        where = Ref(move.name, alias=move.alias)
        raise GateRefused(f"{where} stays where it is: {'; '.join(verdict.reasons)}", verdict=verdict)
    return verdict


def servable(rows: Transaction, name: AdapterName, version: Digest) -> StoredVersion:
    """Raises VersionNotFound, VersionRevoked, VersionUnfingerprinted."""
    found = versions.of_adapter(rows, name, version)
    if found.revoked:
        raise VersionRevoked(f"{version} was revoked")
    if found.fingerprint is None:
        raise VersionUnfingerprinted(
            f"{version} has no fingerprint, so no engine could prove that it serves it"
        )
    return found


def moved(now: AliasState, **fields: object) -> AliasState:
    """The alias one epoch on, with these."""
    return AliasState.model_validate(dict(now) | fields | {"epoch": now.epoch + 1})


def expired(state: AliasState, now: str) -> bool:
    return state.expires_at is not None and state.expires_at <= now


def subject(name: AdapterName, alias: str) -> str:
    return str(Ref(name, alias=alias))


def _former(change: Change, move: Move, now: AliasState | None) -> Former | None:
    """What answered everybody until this move, if it did and still may."""
    if now is None or expired(now, change.now):
        return None
    if now.version == move.version:
        return now.former
    shown = change.rows.versions.get(now.version)
    if shown is None or shown.revoked:
        return None
    until = stamp(datetime.fromisoformat(change.now) + CONVERSATIONS)
    return Former(version=now.version, epoch=now.epoch, since=_since(change, move, now), until=until)


def _since(change: Change, move: Move, now: AliasState) -> int:
    """Canaries and shadows raise the epoch too, and change nothing of what everybody else is answered by."""
    since = now.epoch
    for entry in change.rows.log.back(ALIAS_MOVED, subject(move.name, move.alias)):
        if entry.body["alias"]["version"] != now.version:
            break
        since = min(since, entry.body["alias"]["epoch"])
    return since


def _everybody(
    move: Move, now: AliasState | None, expires_at: str | None, *, former: Former | None
) -> AliasState:
    return AliasState(
        tenant=move.name.tenant,
        adapter=move.name.adapter,
        alias=move.alias,
        version=move.version,
        epoch=(now.epoch if now else 0) + 1,
        shadows=tuple(version for version in (now.shadows if now else ()) if version != move.version),
        expires_at=expires_at,
        former=former,
    )


def _share(move: Move, now: AliasState | None, at: str) -> AliasState:
    """The other canary, and everybody in it, stays where it is."""
    if now is None or expired(now, at):
        raise AliasNotFound(
            f"{Ref(move.name, alias=move.alias)} has no stable version that a canary could stand beside",
            hint="promote a version to 100 percent first",
        )
    known = [canary for canary in now.canaries if canary.version == move.version]
    others = [canary for canary in now.canaries if canary.version != move.version]
    from_top = known[0].from_top if known else any(not canary.from_top for canary in others)
    try:
        mine = Canary.build({"version": move.version, "percent": move.percent, "from_top": from_top})
        canaries = sorted((*others, mine), key=lambda canary: canary.from_top)
        return AliasState.build(
            now.model_dump(mode="json")
            | {
                "epoch": now.epoch + 1,
                "canaries": [canary.model_dump(mode="json") for canary in canaries],
                "shadows": [version for version in now.shadows if version != move.version],
            }
        )
    except InvalidDocument as error:
        raise CanaryInvalid(f"{move.version} cannot get {move.percent} percent: {error.message}") from None


def _check_release(rows: Transaction, move: Move, epoch: int, expires_at: str | None) -> None:
    """A release that nobody asked for must hold as well: it goes into the log."""
    if move.release is None:
        if protections.needed(rows, move.name.tenant, move.alias).release_signature:
            raise ReleaseSignatureRequired(
                f"{Ref(move.name, alias=move.alias)} moves only with a release signature"
            )
        return
    signed = Release.parse(signed_payload(rows, move.release, payload_type=RELEASE, role="release"))
    wanted = Release(
        tenant=move.name.tenant,
        adapter=move.name.adapter,
        alias=move.alias,
        version=move.version,
        percent=move.percent,
        expires_at=expires_at,
        epoch=epoch,
    )
    if signed != wanted:
        differing = sorted(name for name, value in signed if value != getattr(wanted, name))
        raise SignatureInvalid(f"the release was signed for another {', '.join(differing)}")
