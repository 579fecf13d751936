"""Two phases: engines load and attest a version while the alias shows another, then the alias moves."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from registry.catalog.errors import PromotionNotReady
from registry.catalog.preparations import advice
from registry.digests import Digest
from registry.evidence import GatePolicy
from registry.names import AdapterName, Ref
from registry.promotions import Preparation, Readiness
from server.engines.errors import AttestationFailed

T = TypeVar("T")
_EVERY = 0.05
"""Seconds between two looks: an adapter is loaded and attested in about one."""
_BEYOND = 10.0
"""Seconds that a preparation outlives the wait for it: the commit is on its way then."""
_LOOK = "look at the engines (tenon fleet), then try again; --wait waits longer, --no-wait not at all"


class Preparing(Protocol):
    """Either catalog."""

    def prepare(
        self,
        name: AdapterName,
        version: Digest,
        *,
        seconds: float,
        gate: GatePolicy | None = None,
        alias: str = ...,
        percent: float = 100,
        expect_epoch: int | None = None,
        actor: str,
    ) -> Preparation: ...

    def readiness(self, name: AdapterName, version: Digest, *, alias: str = ...) -> Readiness: ...


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to answer where."""

    name: AdapterName
    version: Digest
    alias: str
    percent: float
    gate: GatePolicy | None
    """None: nobody is asked again, for it was live."""
    expect_epoch: int | None


@dataclass(frozen=True, slots=True)
class Patience:
    seconds: float
    """Until it is given up, and nothing has moved."""
    shown: Callable[[Readiness], object] = lambda readiness: None
    """Called with every new answer."""
    ticks: Callable[[], float] = time.monotonic
    pause: Callable[[float], object] = time.sleep


def when_ready(
    catalog: Preparing, goal: Goal, patience: Patience, commit: Callable[[int | None], T], *, actor: str
) -> T:
    """What ``commit`` returns, which raises PromotionNotReady as long as engines are missing. It is given the
    epoch that the preparation saw: whoever moves the alias meanwhile is not overtaken.

    Asked first, because often everything is there already (a roll forward) or there is no engine yet. Raises
    PromotionNotReady when the time is over, and what ``commit`` and a preparation raise. A preparation ends
    by itself, whatever becomes of this process.
    """
    try:
        return commit(goal.expect_epoch)
    except PromotionNotReady:
        pass
    until = patience.ticks() + patience.seconds
    prepared = catalog.prepare(
        goal.name,
        goal.version,
        seconds=min(patience.seconds + _BEYOND, 3600.0),
        gate=goal.gate,
        alias=goal.alias,
        percent=goal.percent,
        expect_epoch=goal.expect_epoch,
        actor=actor,
    )
    known: Readiness | None = None
    while True:
        found = catalog.readiness(goal.name, goal.version, alias=goal.alias)
        if found != known:
            known = found
            patience.shown(found)
        if found.ready:
            try:
                return commit(prepared.epoch)
            except PromotionNotReady:  # an engine went between the two looks
                pass
        elif found.prepared_until is None:
            # Somebody prepares another version for the alias, or moved it: then this says so.
            return commit(prepared.epoch)
        if patience.ticks() >= until:
            raise _late(goal, found, patience.seconds)
        patience.pause(_EVERY)


def _late(goal: Goal, found: Readiness, seconds: float) -> PromotionNotReady:
    where, version = Ref(goal.name, alias=goal.alias), goal.version.short
    failed = found.failed or {}  # known to whoever may know the engines by name
    if found.wanted:
        what = f"{found.wanted - found.attested} of {found.wanted} engines did not hold {version}"
        what += "".join(f"; {name}: {AttestationFailed.code}: {why}" for name, why in failed.items())
    elif found.because == "rank":
        what = f"no engine was for adapters of the rank of {version}"
    elif found.engines:
        what = f"no engine had room for {version}"
    else:
        what = f"no engine was up that could hold {version}"
    return PromotionNotReady(
        f"{where} stays where it is: after {seconds:g} s {what}",
        hint=advice(found) or (AttestationFailed.hint if failed else None) or _LOOK,
        wanted=found.wanted,
        attested=found.attested,
    )
