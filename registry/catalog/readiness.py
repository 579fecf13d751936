"""Which engines are to hold a version, and which do: asked several times a second while somebody waits."""

from dataclasses import replace
from datetime import datetime, timedelta
from threading import Lock
from typing import TypeAlias

from registry.because import because
from registry.catalog import failures, feed
from registry.catalog.errors import LogTruncated
from registry.clock import Clock, stamp
from registry.digests import Digest
from registry.errors import LogForked
from registry.feed import AliasKey, Delta, Position, Snapshot, State, uncollected
from registry.fleet import assigned
from registry.homes import given
from registry.models import AliasState, Former, Level, VersionState
from registry.names import AdapterName
from registry.promotions import Because, Preparation, Readiness, in_force
from registry.store.port import Store
from registry.store.transaction import Transaction
from registry.wants import wants

_EVER = "9999-12-31T23:59:59.000000Z"
_KEPT = timedelta(seconds=2)
"""For which the same question at the same end of the log has the same answer: without an entry
nothing changes but that things expire."""
_Question: TypeAlias = tuple[AliasKey, Digest]


class Following:
    """The part of the registry's state that decides what engines hold, brought up to date by what changed:
    read anew, 50,000 versions take a second."""

    def __init__(self, database: Store, clock: Clock) -> None:
        """``database``: of all tenants, for what an engine has room for depends on all of them."""
        self._database = database
        self._clock = clock
        self._lock = Lock()
        self._state: State | None = None
        self._known: dict[_Question, tuple[Position, datetime, Readiness]] = {}

    def readiness(self, name: AdapterName, alias: str, version: Digest) -> Readiness | None:
        """None for what is no version of this adapter."""
        now = self._clock.now()
        key = (name.tenant, name.adapter, alias)
        with self._lock:  # who comes at the same moment is told what the first one finds out
            with self._database.read() as rows:
                state = self._state = _brought_up(self._state, rows)
            published = state.versions.get(version)
            if published is None or (published.tenant, published.adapter) != (name.tenant, name.adapter):
                return None
            known = self._known.get((key, version))
            if known is not None and known[0] == state.position and now - known[1] < _KEPT:
                return known[2]
            found = self._explained(state, _readiness(state, key, published, now))
            # Answers of before are worth nothing: at most those of one position are kept.
            self._known = {
                question: each for question, each in self._known.items() if each[0] == state.position
            }
            self._known[key, version] = (state.position, now, found)
            return found

    def _explained(self, state: State, found: Readiness) -> Readiness:
        """With what the log has about why engines do not hold it."""
        lacking = [name for name, attested in (found.waits_for or {}).items() if not attested]
        sought = [(name, state.engines[name].boot, found.version) for name in lacking]
        if not sought:
            return found
        with self._database.read() as rows:
            known = failures.reasons(rows, sought)
        failed = {name: why for (name, _), why in sorted(known.items())}
        return found.model_copy(update={"failed": failed or None})


def _readiness(state: State, key: AliasKey, published: VersionState, now: datetime) -> Readiness:
    moved, known = state.aliases.get(key), state.preparations.get(key)
    epoch = moved.epoch if moved else 0
    prepared = (
        known is not None
        and known.version == published.version
        and not published.revoked
        and in_force(known, epoch=epoch, now=stamp(now))
    )
    # As if it were prepared, whether it is or not: the question is what would hold it then.
    tenant, adapter, alias = key
    asked = Preparation(
        tenant=tenant, adapter=adapter, alias=alias, version=published.version, epoch=epoch, until=_EVER
    )
    assumed = replace(state, preparations={**state.preparations, key: asked})
    known_engines = [engine for engine in state.engines.values() if engine.base == published.base]
    up = {engine.engine for engine in known_engines if engine.up}
    wanted = {
        name: _attested(state, name, published.version)
        for name, share in (assigned(assumed, now) if up else {}).items()
        for held in share.versions
        if held.version == published.version and not held.leaving
    }
    attested = sum(wanted.values())
    small = [name for name in wanted if 0 < (state.engines[name].slot_rank or 0) < published.rank]
    restarts = bool(up) and not wanted and _restarts(state, key, published, now)
    return Readiness(
        version=published.version,
        ready=not published.revoked and (attested == len(wanted) > 0 or not known_engines or restarts),
        engines=len(up),
        wanted=len(wanted),
        attested=attested,
        prepared_until=known.until if known is not None and prepared else None,
        down=len(known_engines) - len(up),
        restarts=restarts,
        grow=len(small),
        alone=bool(small) and not any(_has_company(state, name) for name in small),
        because=None if wanted or restarts else _because(assumed, published.version, now),
        waits_for=dict(sorted(wanted.items())),
    )


def _because(state: State, version: Digest, now: datetime) -> Because | None:
    want = wants(state, now).get(version)  # nobody's, where it was revoked or its tenant is suspended
    return want and because(state, want, given(state.tenants.values()))


def _restarts(state: State, key: AliasKey, published: VersionState, now: datetime) -> bool:
    """Whether an engine of the tenant's own would start again with it, and no engine can take it before."""
    tenant = state.tenants.get(published.tenant)
    if tenant is None or tenant.isolation.level is not Level.MERGED:
        return False
    moved = state.aliases.get(key)
    before = moved and Former(version=moved.version, epoch=moved.epoch)
    alias = AliasState(
        tenant=key[0],
        adapter=key[1],
        alias=key[2],
        version=published.version,
        epoch=moved.epoch + 1 if moved else 1,
        former=before if before and before.version != published.version else None,
    )
    after = assigned(replace(state, aliases={**state.aliases, key: alias}, preparations={}), now)
    return any(
        after[name].merged == published.version and state.engines[name].up
        for name in tenant.isolation.engines
        if name in after
    )


def _has_company(state: State, name: str) -> bool:
    """Whether another engine of its base and owner is up."""
    owners, base = given(state.tenants.values()), state.engines[name].base
    return any(
        other.up
        and other.engine != name
        and other.base == base
        and owners.get(other.engine) == owners.get(name)
        for other in state.engines.values()
    )


def _attested(state: State, engine: str, version: Digest) -> bool:
    slot = state.slots.get(engine, {}).get(version)
    return slot is not None and slot.boot == state.engines[engine].boot


def _brought_up(state: State | None, rows: Transaction) -> State:
    if state is None:
        return _everything(rows)
    try:
        news = feed.changes(rows, *state.position)
    except (LogTruncated, LogForked):  # the database was restored from an older copy
        return _everything(rows)
    if news is None:
        return state
    return _reduced(state.after(news) if isinstance(news, Delta) else State.of(news))


def _everything(rows: Transaction) -> State:
    end, told = feed.position(rows), rows.feed
    with uncollected():
        return State.of(
            Snapshot.model_construct(
                size=end.size,
                root=end.root,
                tenants=told.tenants(),
                aliases=told.aliases(),
                preparations=told.preparations(),
                versions=told.versions(),
                engines=told.engines(),
                slots=told.slots(),
            )
        )


def _reduced(state: State) -> State:
    return replace(state, keys={}, bases={}, policies={}, routings={})
