"""Which versions belong on this engine, and what to do about it: pure.

Every agent works out the same shares of the fleet (:mod:`registry.fleet`); this is what one engine makes of
its own. Nothing here evicts: a name stays in vLLM for the whole boot, is never given to anything else and
never loaded twice. What an engine cannot do without evicting (new names when all are used up, other weights)
it does in a fresh boot, after the versions that it serves are served elsewhere.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import datetime, timedelta

from registry.digests import Digest
from registry.feed import State
from registry.fleet import Share, assigned
from registry.homes import given
from registry.models import EngineState


@dataclass(frozen=True, slots=True)
class Capacity:
    names: int
    """Versions ever loaded in one boot: vLLM's CPU cache. One more would evict another (D3). As many may be
    ready at a time: the router keeps those that are worked on within the device slots (D13)."""
    rank: int
    """The largest LoRA rank that a slot of this boot holds."""
    bound: int | None = None
    """The largest that one of a fresh boot may hold; None: the same."""

    def __post_init__(self) -> None:
        if self.names < 1 or self.rank < 1:
            raise ValueError(f"{self.names} names of rank {self.rank} hold nothing")

    @property
    def largest(self) -> int:
        return max(self.rank, self.bound or 0)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the feed says that matters to one engine."""

    share: Share
    expected: frozenset[Digest]
    """Versions that other engines are to hold."""
    elsewhere: frozenset[Digest]
    """Versions with an attested slot on another engine that is up."""
    away: bool
    """Another engine of its base and owner is down and may come back: it is not among ``expected`` what it
    will hold then."""
    tenants: Mapping[Digest, str]
    """Whose the versions are that this boot has met: loaded, or found fault with before."""


SKEW = timedelta(minutes=15)
_NOTHING = Share()


def outlook(
    state: State,
    engine: str,
    now: datetime,
    *,
    met: Set[Digest] = frozenset(),
    gone: Set[str] = frozenset(),
) -> Outlook:
    """The share of ``engine``, which the state need not know yet, and how the others stand. ``now``: of this
    machine, whose clock may be SKEW ahead of the registry's before it drops what that still waits for.
    ``gone``: engines that have been down for so long that nobody waits for them."""
    shares = assigned(state, now - SKEW)
    expected = {each.version for name, share in shares.items() if name != engine for each in share.versions}
    elsewhere = {
        version
        for name, slots in state.slots.items()
        if name != engine and (home := state.engines.get(name)) is not None and home.up
        for version, slot in slots.items()
        if slot.boot == home.boot
    }
    return Outlook(
        share=shares.get(engine, _NOTHING),
        expected=frozenset(expected),
        elsewhere=frozenset(elsewhere),
        away=not all(other.up or other.engine in gone for other in _others(state, engine)),
        tenants={version: state.versions[version].tenant for version in met if version in state.versions},
    )


def stands_alone(state: State, mine: EngineState, *, pool_size: int) -> bool:
    """Whether nobody would serve while it starts afresh, ``mine`` being about to start: of the others of its
    base and owner that take ranks as large, none is up, and none is known that may be starting, too."""
    as_large = [
        other
        for other in state.engines.values()
        if other.engine != mine.engine
        and other.base == mine.base
        and (mine.max_rank is None or other.max_rank is None or other.max_rank >= mine.max_rank)
    ]
    if not as_large:
        return pool_size < 2
    owners = given(state.tenants.values())
    return not any(
        (other.up or pool_size > 1) and owners.get(other.engine) == owners.get(mine.engine)
        for other in as_large
    )


def _others(state: State, engine: str) -> list[EngineState]:
    """Of its base and owner."""
    mine = state.engines.get(engine)
    owners = given(state.tenants.values())
    return [
        other
        for name, other in state.engines.items()
        if mine is not None
        and name != engine
        and other.base == mine.base
        and owners.get(name) == owners.get(engine)
    ]


@dataclass(frozen=True, slots=True)
class Held:
    """What one boot holds."""

    loaded: Set[Digest] = frozenset()
    """Every name it was ever asked to load, whether that worked or not."""
    slots: Set[Digest] = frozenset()
    """Versions that the registry lists as attested here."""
    unfit: Mapping[Digest, str] | None = None
    """Versions that cannot be served in this boot or not now, with the reason."""
    merged: Digest | None = None
    """The version whose weights are part of the engine's."""
    again: Set[Digest] = frozenset()
    """The part of ``loaded`` that vLLM did not take and is to be asked for once more."""
    stuck: Set[Digest] = frozenset()
    """Versions that vLLM goes on failing to load or to answer for, and that a fresh boot may serve."""
    spoilt: Set[Digest] = frozenset()
    """The part of ``unfit`` that a fresh boot may well serve."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """A fresh boot would do what this one cannot."""

    why: str
    needed: tuple[Digest, ...]
    """Served here and to be served elsewhere too, and not yet: until they are, it has to wait."""
    hurries: bool = True
    """Whether it goes in the end without that: one tenant's larger rank is not worth another's answers."""
    rank: int = 0
    """That the fresh boot has to hold, whatever is wanted by then."""


@dataclass(frozen=True, slots=True)
class Plan:
    serve: tuple[Digest, ...]
    """In service now or as soon as they are loaded and attested."""
    load: tuple[Digest, ...]
    """The part of ``serve`` that the engine does not hold yet, in the order to load."""
    withdraw: tuple[Digest, ...]
    """Attested here, wanted and attested elsewhere, and no longer wanted here: their slots end."""
    retired: tuple[Digest, ...]
    """Loaded and not to be served: they stay in memory, so that going back to one costs nothing."""
    unplaced: Mapping[Digest, str]
    """Wanted and not possible here, with the reason."""
    renewal: Renewal | None


def plan(view: Outlook, held: Held, capacity: Capacity) -> Plan:
    """What is loaded already is served whatever comes after it, so that a newcomer never pushes it out."""
    unfit = held.unfit or {}
    unplaced: dict[Digest, str] = {}
    serve: list[Digest] = []
    load: list[Digest] = []
    full, larger = False, 0
    wanted = view.share.versions
    for target in wanted:
        version = target.version
        if version in unfit:
            unplaced[version] = unfit[version]
        elif held.merged is not None and version != held.merged:
            unplaced[version] = "the engine has another version merged into its weights"
        elif held.merged is None and target.rank > capacity.largest:
            unplaced[version] = f"its rank {target.rank} is above the engine's {capacity.largest}"
        elif version in held.loaded:
            serve.append(version)
            if version in held.again:
                load.append(version)
        elif target.leaving:
            unplaced[version] = "it is on its way to other engines"
        elif held.merged is None and target.rank > capacity.rank:
            larger = max(larger, target.rank)
            unplaced[version] = f"its rank {target.rank} is above this boot's {capacity.rank}"
        elif len(held.loaded | set(load)) >= capacity.names:
            full = True
            unplaced[version] = f"this boot of the engine has loaded all {capacity.names} names it may"
        else:
            serve.append(version)
            load.append(version)
    kept = {target.version for target in wanted}
    return Plan(
        serve=tuple(serve),
        load=tuple(load),
        withdraw=tuple(sorted((held.slots - kept) & view.expected & view.elsewhere)),
        retired=tuple(sorted(held.loaded - kept)),
        unplaced=unplaced,
        renewal=_renewal(view, held, kept, full=full, larger=larger),
    )


def _renewal(view: Outlook, held: Held, kept: Set[Digest], *, full: bool, larger: int) -> Renewal | None:
    share = view.share
    if share.merged != held.merged:
        return Renewal("other weights belong on this engine", ())  # the fleet already waited for the others
    alone = "it was given to one tenant and holds adapters of others"
    if share.afresh:
        return Renewal(alone, ())
    served = held.slots & kept
    patient = tuple(sorted(served if view.away else served - view.elsewhere))
    strangers = share.exclusive is not None and any(
        view.tenants.get(version) != share.exclusive for version in held.loaded - kept
    )
    if strangers and held.slots <= view.elsewhere:
        # Not while it is the only one: strangers in memory serve nobody, and its tenant would be without.
        why = alone
    elif full and held.loaded - kept:
        why = "all names of this boot are used up"
    elif faults := _faults(view, held, kept):
        why, tenants = max(faults.items(), key=lambda fault: len(fault[1]))
        interrupted = {view.tenants.get(version) for version in patient}
        if len(tenants) < 2 and interrupted - tenants:
            # One tenant's versions may be made so: for them alone nobody else is interrupted.
            return Renewal(why, patient, hurries=False, rank=larger)
    elif larger:
        # All engines that are to hold it find out at once: nobody goes while one is down, for it may have
        # gone for the same, and what it leaves to others would send them after it.
        return Renewal("a larger rank is wanted than this boot is for", patient, hurries=False, rank=larger)
    else:
        return None
    missing = (served if view.away else held.slots & view.expected) - view.elsewhere
    return Renewal(why, tuple(sorted(missing)), rank=larger)


def _faults(view: Outlook, held: Held, kept: Set[Digest]) -> dict[str, Set[str | None]]:
    """What may be better in a fresh boot -> whose versions it keeps out of this one."""
    found = {
        "loads or looks fail again and again": held.stuck & kept,
        "what was recognised before no longer is in this boot": held.spoilt & kept,
    }
    return {
        why: {view.tenants.get(version) for version in versions}
        for why, versions in found.items()
        if versions
    }
