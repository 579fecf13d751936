"""All engines at a look: what each is, whom it is for, and what it is to hold and holds."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from registry.canonical import Document
from registry.digests import Digest
from registry.feed import State
from registry.fleet import assigned
from registry.models import EngineState
from registry.names import Name
from registry.wants import Why, wants


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


def fleet(state: State, now: datetime) -> Fleet:
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
    unplaced = tuple(
        Unplaced(
            version=want.version,
            tenant=want.tenant.id,
            adapter=state.versions[want.version].adapter,
            why=want.why,
        )
        for want in sorted(wants(state, now).values(), key=lambda want: want[:3])
        if want.version not in placed
    )
    return Fleet(engines=tuple(engines), unplaced=unplaced)
