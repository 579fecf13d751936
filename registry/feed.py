"""What routers and engines are told of the registry: all of it once, then what changed (concepts/feed.md).

Positions in the log order everything: a :class:`Delta` from position n to m, applied to the state at n, gives
exactly the state at m. Nothing is ever removed except slots, and those of an engine come all together.
"""

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeAlias, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from registry.canonical import Document
from registry.digests import Digest
from registry.errors import FeedMismatch, InvalidDocument
from registry.models import (
    AliasState,
    Base,
    EngineState,
    Key,
    Policy,
    Routing,
    Slot,
    Tenant,
    VersionState,
)
from registry.promotions import Preparation

K = TypeVar("K")
V = TypeVar("V")
AliasKey: TypeAlias = tuple[str, str, str]
"""(tenant, adapter, alias)."""


class Position(NamedTuple):
    """A place in one particular log."""

    size: int
    """Entries before it."""
    root: Digest
    """Of the Merkle tree over them: another log has another one."""


class Snapshot(Document):
    """All state the data plane needs, as of log index ``size`` (the number of entries applied).

    Everything comes in the order of its key.
    """

    kind: Literal["tenon.snapshot/v1"] = "tenon.snapshot/v1"
    size: int = Field(ge=0)
    root: Digest
    """Merkle root of the log at ``size``: a reader can prove what it was told."""
    tenants: tuple[Tenant, ...] = ()
    keys: tuple[Key, ...] = ()
    bases: dict[Digest, Base] = Field(default_factory=dict)
    policies: dict[Digest, Policy] = Field(default_factory=dict)
    routings: tuple[Routing, ...] = ()
    """Of the tenants that published one."""
    aliases: tuple[AliasState, ...] = ()
    preparations: tuple[Preparation, ...] = ()
    """The newest of each alias, whether it is in force or not."""
    versions: tuple[VersionState, ...] = ()
    engines: tuple[EngineState, ...] = ()
    slots: tuple[Slot, ...] = ()

    @property
    def position(self) -> Position:
        return Position(self.size, self.root)


class Delta(Document):
    """Everything that changed between two positions, as it is at the later one."""

    kind: Literal["tenon.delta/v1"] = "tenon.delta/v1"
    after: int = Field(ge=0)
    follows: Digest
    """Merkle root of the log at ``after``: a delta of another log applies to nothing."""
    size: int = Field(ge=0)
    root: Digest
    tenants: tuple[Tenant, ...] = ()
    keys: tuple[Key, ...] = ()
    bases: dict[Digest, Base] = Field(default_factory=dict)
    policies: dict[Digest, Policy] = Field(default_factory=dict)
    routings: tuple[Routing, ...] = ()
    aliases: tuple[AliasState, ...] = ()
    preparations: tuple[Preparation, ...] = ()
    versions: tuple[VersionState, ...] = ()
    """The slots of a revoked one end with it, on every engine."""
    engines: tuple[EngineState, ...] = ()
    slots: dict[str, tuple[Slot, ...]] = Field(default_factory=dict)
    """Engine -> all that is attested on it now, of every engine on which that may have changed."""

    @property
    def position(self) -> Position:
        return Position(self.size, self.root)


News: TypeAlias = Snapshot | Delta
_NEWS: TypeAdapter[News] = TypeAdapter(Annotated[News, Field(discriminator="kind")])


@contextmanager
def uncollected() -> Iterator[None]:
    """Around the making of a whole state, whose hundred thousand documents make no cycles: Python would look
    through all of them again and again, for two thirds of the time (2.0 s and not 0.7 s, at 50,000 versions).
    """
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


def parse(body: bytes) -> News:
    """Raises InvalidDocument."""
    try:
        with uncollected():
            return _NEWS.validate_json(body)
    except ValidationError as error:
        raise InvalidDocument(f"not news of a registry: {error.error_count()} faults") from None


def encode(news: News) -> bytes:
    """JSON, not canonical: nobody signs it, and canonical JSON of 50,000 versions takes seconds."""
    return news.model_dump_json().encode()


def encode_parts(position: Position, fields: Iterable[tuple[str, Iterable[Any]]]) -> bytes:
    """A snapshot from (field, parts of it): the same text as :func:`encode`, without ever holding all of its
    documents, which take eight times as much memory as their text."""
    text = bytearray(b'{"kind":%s' % _json(str, Snapshot.model_fields["kind"].default))
    text += b',"size":%d,"root":%s' % (position.size, _json(str, position.root))
    for name, parts in fields:
        ends = b"{}" if name in ("bases", "policies") else b"[]"
        kind = Snapshot.model_fields[name].annotation
        inner = [_json(kind, part if ends == b"{}" else tuple(part))[1:-1] for part in parts]
        text += b',"%s":%c%s%c' % (name.encode(), ends[0], b",".join(inner), ends[1])
    return bytes(text + b"}")


def _json(kind: Any, value: Any) -> bytes:
    return _adapter(kind).dump_json(value)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@dataclass(frozen=True, slots=True)
class State:
    """A snapshot by keys, as readers keep it; a newer state shares whatever did not change."""

    position: Position
    tenants: Mapping[str, Tenant]
    keys: Mapping[str, Key]
    bases: Mapping[Digest, Base]
    policies: Mapping[Digest, Policy]
    routings: Mapping[str, Routing]
    aliases: Mapping[AliasKey, AliasState]
    versions: Mapping[Digest, VersionState]
    engines: Mapping[str, EngineState]
    slots: Mapping[str, Mapping[Digest, Slot]]
    """Engine -> version -> slot; engines without slots are not listed."""
    preparations: Mapping[AliasKey, Preparation] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.position.size

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        return cls(
            position=snapshot.position,
            tenants={tenant.id: tenant for tenant in snapshot.tenants},
            keys={key.id: key for key in snapshot.keys},
            bases=snapshot.bases,
            policies=snapshot.policies,
            routings={routing.tenant: routing for routing in snapshot.routings},
            aliases={alias_key(alias): alias for alias in snapshot.aliases},
            versions={version.version: version for version in snapshot.versions},
            engines={engine.engine: engine for engine in snapshot.engines},
            slots=_by_engine(snapshot.slots),
            preparations={alias_key(each): each for each in snapshot.preparations},
        )

    def after(self, delta: Delta) -> "State":
        """This state with ``delta`` applied. Raises FeedMismatch when it does not follow exactly here."""
        if (delta.after, delta.follows) != self.position or delta.size <= delta.after:
            raise FeedMismatch(
                f"changes after {delta.after} do not continue a state of size {self.size}",
                size=self.size,
                after=delta.after,
            )
        return replace(
            self,
            position=delta.position,
            tenants=_with(self.tenants, {tenant.id: tenant for tenant in delta.tenants}),
            keys=_with(self.keys, {key.id: key for key in delta.keys}),
            bases=_with(self.bases, delta.bases),
            policies=_with(self.policies, delta.policies),
            routings=_with(self.routings, {routing.tenant: routing for routing in delta.routings}),
            aliases=_with(self.aliases, {alias_key(alias): alias for alias in delta.aliases}),
            versions=_with(self.versions, {version.version: version for version in delta.versions}),
            engines=_with(self.engines, {engine.engine: engine for engine in delta.engines}),
            slots=self._slots_after(delta),
            preparations=_with(self.preparations, {alias_key(each): each for each in delta.preparations}),
        )

    def snapshot(self) -> Snapshot:
        """O(everything): for tests and for people."""
        return Snapshot(
            size=self.position.size,
            root=self.position.root,
            tenants=_in_order(self.tenants),
            keys=_in_order(self.keys),
            bases=dict(sorted(self.bases.items())),
            policies=dict(sorted(self.policies.items())),
            routings=_in_order(self.routings),
            aliases=_in_order(self.aliases),
            preparations=_in_order(self.preparations),
            versions=_in_order(self.versions),
            engines=_in_order(self.engines),
            slots=tuple(slot for slots in _in_order(self.slots) for slot in _in_order(slots)),
        )

    def _slots_after(self, delta: Delta) -> Mapping[str, Mapping[Digest, Slot]]:
        gone = {version.version for version in delta.versions if version.revoked}
        found = self.slots
        if gone:
            found = {
                engine: slots
                if gone.isdisjoint(slots)
                else {version: slot for version, slot in slots.items() if version not in gone}
                for engine, slots in found.items()
            }
        if delta.slots:
            found = {**found, **{engine: _by_version(slots) for engine, slots in delta.slots.items()}}
        if gone or delta.slots:
            found = {engine: slots for engine, slots in found.items() if slots}
        return found


def difference(old: Snapshot, new: Snapshot) -> Delta | None:
    """The delta between two snapshots, for registries that live in memory.

    None when something was removed that no registry removes: then only the new snapshot tells it.
    """
    before, now = State.of(old), State.of(new)
    kept = (
        "tenants",
        "keys",
        "bases",
        "policies",
        "routings",
        "aliases",
        "preparations",
        "versions",
        "engines",
    )
    if any(getattr(before, name).keys() - getattr(now, name).keys() for name in kept):
        return None
    engines = sorted({*before.slots, *now.slots})
    return Delta(
        after=old.size,
        follows=old.root,
        size=new.size,
        root=new.root,
        tenants=_changed(before.tenants, now.tenants),
        keys=_changed(before.keys, now.keys),
        bases={digest: base for digest, base in now.bases.items() if before.bases.get(digest) != base},
        policies={key: policy for key, policy in now.policies.items() if before.policies.get(key) != policy},
        routings=_changed(before.routings, now.routings),
        aliases=_changed(before.aliases, now.aliases),
        preparations=_changed(before.preparations, now.preparations),
        versions=_changed(before.versions, now.versions),
        engines=_changed(before.engines, now.engines),
        slots={
            engine: _in_order(now.slots.get(engine, {}))
            for engine in engines
            if before.slots.get(engine) != now.slots.get(engine)
        },
    )


def alias_key(alias: AliasState | Preparation) -> AliasKey:
    return alias.tenant, alias.adapter, alias.alias


def _with(known: Mapping[K, V], changes: Mapping[K, V]) -> Mapping[K, V]:
    return {**known, **changes} if changes else known


def _changed(before: Mapping[Any, V], now: Mapping[Any, V]) -> tuple[V, ...]:
    return tuple(now[key] for key in sorted(now) if before.get(key) != now[key])


def _in_order(known: Mapping[Any, V]) -> tuple[V, ...]:
    return tuple(known[key] for key in sorted(known))


def _by_version(slots: Iterable[Slot]) -> dict[Digest, Slot]:
    return {slot.version: slot for slot in slots}


def _by_engine(slots: Iterable[Slot]) -> dict[str, dict[Digest, Slot]]:
    found: dict[str, dict[Digest, Slot]] = {}
    for slot in slots:
        found.setdefault(slot.engine, {})[slot.version] = slot
    return found
