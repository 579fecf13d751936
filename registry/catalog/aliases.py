"""Move aliases: promote after a verdict, roll back to what was there before."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from registry.catalog import versions
from registry.catalog.change import Change
from registry.catalog.errors import NothingToRollBack, VersionUnfingerprinted
from registry.catalog.projection import ALIAS_MOVED
from registry.digests import Digest
from registry.errors import AliasMoved, AliasNotFound, GateRefused, VersionRevoked
from registry.evidence import GatePolicy, Verdict
from registry.gates.decide import decide
from registry.models import AliasState
from registry.names import AdapterName, Ref, parse_name
from registry.store.transaction import Transaction

Cause: TypeAlias = Literal["promotion", "rollback"]


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
    verdict: Digest
    """Of the verdict that allowed this version: for a roll back, the one of its promotion."""


def promote(
    change: Change,
    name: AdapterName,
    version: Digest,
    *,
    gate: GatePolicy,
    alias: str,
    expect_epoch: int | None,
) -> Verdict:
    """``expect_epoch``: the epoch that the caller saw, 0 for an alias that does not exist yet.

    Raises VersionNotFound, VersionRevoked, VersionUnfingerprinted, AliasMoved, GateRefused (with the verdict
    in its facts); nothing has moved then. Promoting what the alias already shows changes nothing.
    """
    parse_name(alias, "alias")
    found = versions.of_adapter(change.rows, name, version)
    if found.revoked:
        raise VersionRevoked(f"{version} was revoked")
    if found.manifest.fingerprint is None:
        raise VersionUnfingerprinted(
            f"{version} has no fingerprint, so no engine could prove that it serves it"
        )
    now = change.rows.aliases.get(name, alias)
    epoch = now.epoch if now else 0
    if expect_epoch is not None and expect_epoch != epoch:
        raise AliasMoved(f"{name}:{alias} is at epoch {epoch}, not {expect_epoch}", epoch=epoch)
    verdict = decide(gate, version=version, reports=change.rows.versions.reports(version))
    if not verdict.passed:
        raise GateRefused(f"{name}:{alias} stays where it is: {'; '.join(verdict.reasons)}", verdict=verdict)
    if now is None or now.version != version:
        said = {
            "verdict": verdict.identity(),
            "verdict_body": verdict.model_dump(mode="json"),
            "gate": gate.model_dump(mode="json"),
        }
        _move(change, name, alias, version=version, now=now, cause="promotion", said=said)
    return verdict


def roll_back(change: Change, name: AdapterName, *, alias: str) -> AliasState:
    """To the version that was promoted before the present one and was not revoked since.

    Rolling back again goes one further: a version that was rolled back from is never returned to.
    """
    now = change.rows.aliases.get(name, alias)
    if now is None:
        raise AliasNotFound(f"{Ref(name, alias=alias)} points nowhere")
    for version, said in reversed(_ladder(change.rows, name, alias)[:-1]):
        found = change.rows.versions.get(version)
        if version != now.version and found is not None and not found.revoked:
            return _move(change, name, alias, version=version, now=now, cause="rollback", said=said)
    raise NothingToRollBack(f"{name}:{alias} shows no earlier version that could be served")


def history(rows: Transaction, name: AdapterName, alias: str) -> tuple[AliasMove, ...]:
    """Oldest first; empty for an alias that never was."""
    moves = []
    for entry in rows.log.about(ALIAS_MOVED, _subject(name, alias)):
        state = AliasState.build(entry.body["alias"])
        previous = entry.body["from"]
        moves.append(
            AliasMove(
                entry=entry.index,
                at=entry.at,
                actor=entry.actor,
                epoch=state.epoch,
                version=state.version,
                previous=Digest(previous) if previous else None,
                cause=entry.body["cause"],
                verdict=Digest(entry.body["verdict"]),
            )
        )
    return tuple(moves)


def _ladder(rows: Transaction, name: AdapterName, alias: str) -> list[tuple[Digest, dict[str, Any]]]:
    """The promotions that are still stood upon, oldest first: a roll back takes away all above its target."""
    rungs: list[tuple[Digest, dict[str, Any]]] = []
    for entry in rows.log.about(ALIAS_MOVED, _subject(name, alias)):
        version = AliasState.build(entry.body["alias"]).version
        if entry.body["cause"] == "rollback":
            while rungs and rungs[-1][0] != version:
                rungs.pop()
        else:
            rungs.append((version, {key: entry.body[key] for key in ("verdict", "verdict_body", "gate")}))
    return rungs


def _move(
    change: Change,
    name: AdapterName,
    alias: str,
    *,
    version: Digest,
    now: AliasState | None,
    cause: Cause,
    said: dict[str, Any],
) -> AliasState:
    state = AliasState(
        tenant=name.tenant,
        adapter=name.adapter,
        alias=alias,
        version=version,
        epoch=(now.epoch if now else 0) + 1,
    )
    body = {"alias": state.model_dump(mode="json"), "from": now.version if now else None, "cause": cause}
    change.write(ALIAS_MOVED, _subject(name, alias), body | said)
    return state


def _subject(name: AdapterName, alias: str) -> str:
    return str(Ref(name, alias=alias))
