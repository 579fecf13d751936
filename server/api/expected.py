"""Which engines there should be, held against those that are up.

What discovery says never makes an engine live: only its agent's announcement and its signed attestations do.
Discovery keeps an engine out, takes one down, or shows that one is missing: docs/concepts/fleet.md.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from registry.catalog.errors import EngineReplaced
from registry.catalog.fleet import Doubt, Doubted, Fleet, Missing
from registry.catalog.local.catalog import LocalCatalog
from registry.digests import Digest
from registry.models import Base, EngineState
from server.engines.discovery.sighting import Address, Listed, Sighting
from server.errors import EngineNotExpected

ACTOR: Final = "control:discovery"
GRACE: Final = 2.0
"""Seconds that an engine may be listed nowhere: Kubernetes moves endpoints from one slice to another, and a
watch tells it as two events. That a pod is ending is one event, and is believed at once."""
_log = logging.getLogger(__name__)

_Key = tuple[str, str]
"""(engine, boot)"""


@dataclass(frozen=True, slots=True)
class _Doubting:
    why: Doubt
    since: float
    sure: bool
    """Whether a source says so that agrees with somebody."""


class Discovery(Protocol):
    """A source. Several of them must agree: each is a wall of its own."""

    def look(self) -> Sighting:
        """What it knows now, from any thread and without waiting for a network."""
        ...


class Expected:
    """One per control plane process."""

    def __init__(
        self,
        catalog: LocalCatalog,
        discoveries: Sequence[Discovery] = (),
        *,
        refuse: bool = True,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """``refuse``: whether an engine that is listed otherwise, or nowhere, is kept out; else it is only
        shown. ``ticks``: monotonic seconds, the ones that ``discoveries`` have."""
        self._catalog = catalog
        self._discoveries = tuple(discoveries)
        self._refuse = refuse
        self._ticks = ticks
        self._agreed: frozenset[_Key] = frozenset()
        """Boots with which every source has agreed at some time."""
        self._doubts: Mapping[_Key, _Doubting] = {}
        self._missing: Mapping[str, float] = {}

    @property
    def watching(self) -> bool:
        return bool(self._discoveries)

    def check(self, state: EngineState) -> None:
        """Before an announcement is taken. Raises EngineNotExpected; that an engine is down may always be
        said."""
        if not state.up or not self.watching:
            return
        known = self._catalog.engine(state.engine)
        if known == state:  # it says nothing new, and sweep() has its eye on it
            return
        sightings = self._look()
        heard = [each for each in sightings if each.heard is not None]
        why = _doubt(state, heard, self._bases((state,)))
        if why is None and len(heard) < len(sightings):
            why = Doubt.UNHEARD
        if why is None or (why is not Doubt.ENDING and not self._refuse):
            return
        _log.warning("the announcement of %s is refused: %s", state.engine, why)
        raise EngineNotExpected(f"the engine {state.engine} is not expected so: {why}", why=why)

    def sweep(self) -> tuple[str, ...]:
        """Announce down what discovery says is gone; their names."""
        if not self.watching:
            return ()
        now, sightings = self._ticks(), self._look()
        up = {(engine.engine, engine.boot): engine for engine in self._catalog.engines() if engine.up}
        bases = self._bases(up.values())
        self._doubts = self._doubted(up, sightings, bases, now)
        agreed = {
            key
            for key, state in up.items()
            if all(_against(state, each, bases) is None for each in sightings)
        }
        self._agreed = frozenset((self._agreed & up.keys()) | agreed)
        names = {engine.engine for engine in up.values()}
        self._missing = {
            name: self._missing.get(name, now) for name in _listed(sightings) if name not in names
        }
        return tuple(
            key[0]
            for key, doubt in self._doubts.items()
            if self._gone(key, doubt, now) and self._end(up[key], doubt.why)
        )

    def shown(self, fleet: Fleet) -> Fleet:
        """With who is missing, and who is there and should not be."""
        if not self.watching:
            return fleet
        now, sightings = self._ticks(), self._look()
        listed = _listed(sightings)
        states = {each.state.engine: each.state for each in fleet.engines}
        up = {(state.engine, state.boot): state for state in states.values() if state.up}
        doubts = self._doubted(up, sightings, self._bases(up.values()), now)
        doubted = [
            Doubted(engine=engine, why=doubt.why, seconds=now - doubt.since)
            for (engine, _), doubt in doubts.items()
        ]
        doubted += [
            Doubted(engine=each.state.engine, why=Doubt.OTHER_TENANT)
            for each in fleet.engines
            if (one := listed.get(each.state.engine)) and one.tenant not in (None, each.exclusive)
        ]
        missing = tuple(
            Missing(
                engine=name,
                base=one.base,
                announced=name in states,
                seconds=now - self._missing[name] if name in self._missing else None,
            )
            for name, one in listed.items()
            if name not in {state.engine for state in up.values()}
        )
        return fleet.model_copy(update={"missing": missing, "doubted": tuple(doubted)})

    def figures(self) -> Mapping[str, float]:
        """Of the last look, for metrics: they name no engine."""
        now, sightings = self._ticks(), self._look()
        heard = [each.heard for each in sightings if each.heard is not None]
        return {
            "engines_expected": len(_listed(sightings)),
            "engines_missing": len(self._missing),
            "engines_missing_seconds": max((now - since for since in self._missing.values()), default=0.0),
            "engines_doubted": len(self._doubts),
            "discovery_age_seconds": now - min(heard)
            if heard and len(heard) == len(sightings)
            else float("inf"),
        }

    def _look(self) -> tuple[Sighting, ...]:
        return tuple(each.look() for each in self._discoveries)

    def _bases(self, states: Iterable[EngineState]) -> Mapping[Digest, Base]:
        return self._catalog.bases() if any(True for _ in states) else {}

    def _doubted(
        self,
        up: Mapping[_Key, EngineState],
        sightings: Sequence[Sighting],
        bases: Mapping[Digest, Base],
        now: float,
    ) -> dict[_Key, _Doubting]:
        heard = [each for each in sightings if each.heard is not None]
        # A list that agrees with nobody who is up is more likely wrong (its Service was deleted, its file
        # emptied) than a whole fleet is gone. Leases still find out who is.
        believed = [
            each for each in heard if any(_against(state, each, bases) is None for state in up.values())
        ]
        found: dict[_Key, _Doubting] = {}
        for key, state in up.items():
            why = _doubt(state, heard, bases)
            if why is not None:
                sure = why is Doubt.ENDING or _doubt(state, believed, bases) is not None
                since = self._doubts[key].since if key in self._doubts else now
                found[key] = _Doubting(why, since, sure)
        return found

    def _gone(self, key: _Key, doubt: _Doubting, now: float) -> bool:
        if doubt.why is Doubt.ENDING:
            return True
        return doubt.sure and (self._refuse or key in self._agreed) and now - doubt.since >= GRACE

    def _end(self, engine: EngineState, why: Doubt) -> bool:
        try:
            self._catalog.announce(engine.model_copy(update={"up": False}), actor=ACTOR)
        except EngineReplaced:  # its pod has just come again
            return False
        _log.warning("%s counts as down: %s", engine.engine, why)
        return True


def _listed(sightings: Iterable[Sighting]) -> dict[str, Listed]:
    """Who should be there: whom any source lists, with all that is said of it."""
    found: dict[str, Listed] = {}
    for each in sightings:
        for name, one in each.engines.items():
            if not one.ending:
                before = found.get(name, one)
                found[name] = Listed(base=before.base or one.base, tenant=before.tenant or one.tenant)
    return dict(sorted(found.items()))


def _doubt(state: EngineState, sightings: Iterable[Sighting], bases: Mapping[Digest, Base]) -> Doubt | None:
    """What the first source has against it, unless any says that it is ending."""
    found = [why for each in sightings if (why := _against(state, each, bases)) is not None]
    return Doubt.ENDING if Doubt.ENDING in found else next(iter(found), None)


def _against(state: EngineState, sighting: Sighting, bases: Mapping[Digest, Base]) -> Doubt | None:
    one = sighting.engines.get(state.engine)
    if one is None:
        return Doubt.NOT_LISTED
    if one.addresses is not None and Address.of(state.url) not in one.addresses:
        return Doubt.ELSEWHERE
    if one.ending:
        return Doubt.ENDING
    if one.base is not None and (state.base not in bases or bases[state.base].name != one.base):
        return Doubt.OTHER_BASE
    return None
