"""All engines at a look: what each is, whom it is for, and what it is to hold and holds."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import Field

from registry.because import because
from registry.canonical import Document, later
from registry.digests import Digest
from registry.feed import State
from registry.fingerprint import Attestation, Strength
from registry.fleet import assigned
from registry.homes import given
from registry.models import EngineState
from registry.names import Name
from registry.promotions import Because
from registry.signing.envelope import Envelope
from registry.store.transaction import Transaction
from registry.wants import Why, wants

_AT_ONCE: Final = 500
"""Entries in one query: SQLite takes 999 variables where it is old."""


class Held(Document):
    """A version on an engine."""

    version: Digest
    tenant: Name
    adapter: Name
    why: Why | None
    """None: nobody wants it there any more."""
    pinned: bool = False
    leaving: bool = False
    """Until it is attested where it belongs."""
    attested: bool = False
    strength: Strength | None = None
    """How surely the engine was seen to behave as it. ``weak``: as far as rounding shows it could be another;
    only the digest of what was loaded says which (docs/concepts/attestation.md)."""
    failed: str = later("")
    """What the engine found wrong when it looked at it: this boot will not serve it. Empty where it was not
    looked at yet, and where nothing could be looked at (the agent's ``/state`` says what is in the way)."""


class FleetEngine(Document):
    state: EngineState
    base: str
    """Name."""
    exclusive: Name | None = None
    merging: Digest | None = None
    """The version that its weights are to be merged with, and are not yet."""
    held: tuple[Held, ...] = ()


class Unplaced(Document):
    """A wanted version that no engine is to hold."""

    version: Digest
    tenant: Name
    adapter: Name
    why: Why
    because: Because = later("full")


class Missing(Document):
    """An engine that discovery lists and that is not up."""

    engine: Name
    base: Name | None = None
    """The name of its base, where the list has one."""
    announced: bool = False
    """Whether it was ever there."""
    seconds: float | None = Field(default=None, ge=0)
    """Since when, as long as this control plane has looked; None: looked at only now."""


class Doubt(StrEnum):
    """What discovery has against an engine's announcement."""

    UNHEARD = "discovery has not answered yet"
    NOT_LISTED = "not listed"
    ENDING = "ending"
    ELSEWHERE = "listed at another address"
    OTHER_BASE = "listed with another base"
    OTHER_TENANT = "listed for another tenant than it was given to"


class Doubted(Document):
    """An engine that is up, and that discovery does not know so."""

    engine: Name
    why: Doubt
    seconds: float | None = Field(default=None, ge=0)


class Fleet(Document):
    engines: tuple[FleetEngine, ...]
    unplaced: tuple[Unplaced, ...] = ()
    missing: tuple[Missing, ...] = ()
    doubted: tuple[Doubted, ...] = ()


def strengths(rows: Transaction) -> dict[tuple[str, Digest], Strength]:
    """(engine, version) -> what the attestation of its slot says."""
    entries = sorted((index, pair) for pair, index in rows.engines.entries().items())
    found: dict[tuple[str, Digest], Strength] = {}
    for start in range(0, len(entries), _AT_ONCE):
        for entry in rows.log.at([index for index, _ in entries[start : start + _AT_ONCE]]):
            said = Attestation.parse(Envelope.build(entry.body["envelope"]).body())
            found[said.engine, said.version] = said.strength
    return found


def unattested(found: Fleet) -> list[tuple[Name, str, Digest]]:
    """(engine, boot, version) of all that engines which are up are to hold and were not seen to."""
    return [
        (each.state.engine, each.state.boot, held.version)
        for each in found.engines
        if each.state.up
        for held in each.held
        if not held.attested
    ]


def explained(found: Fleet, failed: Mapping[tuple[Name, Digest], str]) -> Fleet:
    """With the reasons of :func:`registry.catalog.failures.reasons`."""
    return found.model_copy(
        update={"engines": tuple(_explained(each, failed) for each in found.engines)} if failed else {}
    )


def _explained(engine: FleetEngine, failed: Mapping[tuple[Name, Digest], str]) -> FleetEngine:
    held = tuple(
        each
        if each.attested or (why := failed.get((engine.state.engine, each.version))) is None
        else each.model_copy(update={"failed": why})
        for each in engine.held
    )
    return engine.model_copy(update={"held": held})


def fleet(
    state: State, now: datetime, strength: Mapping[tuple[str, Digest], Strength] | None = None
) -> Fleet:
    """``strength``: of :func:`strengths`."""
    known = strength or {}
    shares = assigned(state, now)
    engines = []
    placed: set[Digest] = set()
    for name, share in shares.items():
        engine = state.engines[name]
        slots = {
            version: slot for version, slot in state.slots.get(name, {}).items() if slot.boot == engine.boot
        }
        held = [
            Held(
                version=each.version,
                tenant=state.versions[each.version].tenant,
                adapter=state.versions[each.version].adapter,
                why=each.why,
                pinned=each.pinned,
                leaving=each.leaving,
                attested=each.version in slots,
                strength=known.get((name, each.version)) if each.version in slots else None,
            )
            for each in share.versions
        ]
        listed = {each.version for each in held}
        placed |= listed
        held += [
            Held(
                version=version,
                tenant=state.versions[version].tenant,
                adapter=state.versions[version].adapter,
                why=None,
                attested=True,
                strength=known.get((name, version)),
            )
            for version in sorted(slots)
            if version not in listed and version in state.versions
        ]
        base = state.bases.get(engine.base)
        engines.append(
            FleetEngine(
                state=engine,
                base=base.name if base else engine.base.short,
                exclusive=share.exclusive,
                merging=share.merged if share.merged != engine.merged else None,
                held=tuple(held),
            )
        )
    owners = given(state.tenants.values())
    unplaced = tuple(
        Unplaced(
            version=want.version,
            tenant=want.tenant.id,
            adapter=state.versions[want.version].adapter,
            why=want.why,
            because=because(state, want, owners),
        )
        for want in sorted(wants(state, now).values(), key=lambda want: want[:3])
        if want.version not in placed
    )
    return Fleet(engines=tuple(engines), unplaced=unplaced)
