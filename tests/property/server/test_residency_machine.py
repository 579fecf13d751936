"""A fleet of engines that live by their plans, whatever the registry says and whatever fails."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from registry.clock import stamp
from registry.digests import Digest
from registry.feed import Position, State
from registry.homes import given
from registry.models import (
    AliasState,
    EngineState,
    Former,
    Isolation,
    Level,
    Slot,
    Tenant,
    VersionState,
)
from registry.promotions import Preparation
from router.limits import Timeouts
from server.engines.cadence import Cadence
from server.engines.drain import vacating
from server.engines.residency import Capacity, Held, Outlook, Plan, Renewal, outlook, plan, stands_alone
from server.engines.sizes import Sizes, sizes

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE = Digest.of(b"base")
ENGINES = ("one", "three", "two")
TENANTS = ("bank_a", "retail_b", "saas_c")
VERSIONS = {Digest.of(f"{tenant}/{number}".encode()): tenant for tenant in TENANTS for number in range(5)}
RANKS = dict(zip(VERSIONS, (8, 8, 16, 40, 8) * len(TENANTS), strict=True))
NAMES = 4
BOUND = 64
CADENCE = Cadence()
versions = st.sampled_from(sorted(VERSIONS))
engines = st.sampled_from(ENGINES)
tenants = st.sampled_from(TENANTS)


@dataclass
class Engine:
    """What an agent keeps of one boot, without any vLLM."""

    name: str
    boot: int = 0
    up: bool = False
    merged: Digest | None = None
    loaded: list[Digest] = field(default_factory=list)
    failed: dict[Digest, str] = field(default_factory=dict)
    slots: set[Digest] = field(default_factory=set)
    rank: int = BOUND
    """That the device slots of the boot hold."""

    def start(self, merged: Digest | None, rank: int) -> None:
        self.boot += 1
        self.up, self.merged, self.rank = True, merged, rank
        self.loaded, self.failed, self.slots = [], {}, set()


class Fleet(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.fleet = {name: Engine(name) for name in ENGINES}
        self.aliases: dict[tuple[str, str, str], AliasState] = {}
        self.preparations: dict[tuple[str, str, str], Preparation] = {}
        self.tenants = {name: Tenant(id=name, display_name=name) for name in TENANTS}
        self.revoked: set[Digest] = set()
        self.broken: set[Digest] = set()
        for engine in self.fleet.values():
            engine.start(None, 16)

    def announced(self, engine: Engine) -> EngineState:
        return EngineState(
            engine=engine.name,
            boot=f"{engine.name}-{engine.boot:08}",
            url="http://127.0.0.1:1",
            base=BASE,
            engine_version="0.32.0",
            dtype="float32",
            max_loras=1 if engine.merged else 2,
            names=1 if engine.merged else NAMES,
            up=engine.up,
            merged=engine.merged,
            max_rank=BOUND,
            slot_rank=engine.rank if engine.merged is None else None,
        )

    def state(self) -> State:
        homes = {engine.name: self.announced(engine) for engine in self.fleet.values()}
        return State(
            position=Position(1, BASE),
            tenants=self.tenants,
            keys={},
            bases={},
            policies={},
            routings={},
            aliases=self.aliases,
            preparations=self.preparations,
            versions={
                version: VersionState(
                    version=version,
                    tenant=tenant,
                    adapter="a",
                    base=BASE,
                    rank=RANKS[version],
                    revoked=version in self.revoked,
                )
                for version, tenant in VERSIONS.items()
            },
            engines=homes,
            slots={
                engine.name: {
                    version: Slot(
                        engine=engine.name,
                        boot=homes[engine.name].boot,
                        version=version,
                        attestation=version,
                    )
                    for version in engine.slots
                }
                for engine in self.fleet.values()
                if engine.up and engine.slots
            },
        )

    def planned(self, engine: Engine) -> tuple[Outlook, Plan]:
        view = outlook(self.state(), engine.name, NOW, met=set(engine.loaded))
        held = Held(loaded=set(engine.loaded), slots=engine.slots, unfit=engine.failed, merged=engine.merged)
        names = 1 if engine.merged else NAMES
        return view, plan(view, held, Capacity(names=names, rank=engine.rank, bound=BOUND))

    def start(self, engine: Engine, merged: Digest | None, *, least: int = 0) -> None:
        """A fresh boot, as large as what will be wanted of it, or as the bound if it stands alone."""
        mine = self.announced(engine).model_copy(update={"up": True, "merged": merged, "slot_rank": None})
        known = self.state()
        share = outlook(replace(known, engines={**known.engines, engine.name: mine}), engine.name, NOW).share
        bounds = Sizes(rank=BOUND, names=NAMES)
        made = sizes([each.rank for each in share.versions] + [least], bounds)
        alone = stands_alone(known, mine, pool_size=len(ENGINES))
        engine.start(merged, BOUND if alone else made.rank)

    # What people do

    @rule(version=versions)
    def promote(self, version: Digest) -> None:
        key = (VERSIONS[version], "a", "live")
        before = self.aliases.get(key)
        former = None
        if before is not None:
            former = (
                before.former
                if before.version == version
                else Former(version=before.version, epoch=before.epoch)
            )
        self.aliases[key] = AliasState(
            tenant=key[0],
            adapter="a",
            alias="live",
            version=version,
            epoch=before.epoch + 1 if before else 1,
            former=former,
        )
        self.preparations.pop(key, None)

    @rule(version=versions)
    def prepare(self, version: Digest) -> None:
        key = (VERSIONS[version], "a", "live")
        known = self.aliases.get(key)
        self.preparations[key] = Preparation(
            tenant=key[0],
            adapter="a",
            alias="live",
            version=version,
            epoch=known.epoch if known else 0,
            until=stamp(NOW.replace(year=2027)),
        )

    @rule(tenant=tenants)
    def roll_back(self, tenant: str) -> None:
        known = self.aliases.get((tenant, "a", "live"))
        if known is not None and known.former is not None:
            self.aliases[tenant, "a", "live"] = known.model_copy(
                update={"version": known.former.version, "former": None, "epoch": known.epoch + 1}
            )

    @rule(version=versions)
    def revoke(self, version: Digest) -> None:
        self.revoked.add(version)
        for engine in self.fleet.values():
            engine.slots.discard(version)

    @rule(tenant=tenants, suspended=st.booleans())
    def suspend(self, tenant: str, suspended: bool) -> None:
        self.tenants[tenant] = self.tenants[tenant].model_copy(update={"suspended": suspended})

    @rule(tenant=tenants, level=st.sampled_from(list(Level)), engine=engines)
    def isolate(self, tenant: str, level: Level, engine: str) -> None:
        own = level in (Level.DEDICATED, Level.MERGED)
        if own and any(engine in other.isolation.engines for other in self.tenants.values()):
            return
        isolation = Isolation(level=level, engines=(engine,) if own else ())
        self.tenants[tenant] = self.tenants[tenant].model_copy(update={"isolation": isolation})

    # What happens to engines

    @rule(version=versions, broken=st.booleans())
    def break_loads(self, version: Digest, broken: bool) -> None:
        (self.broken.add if broken else self.broken.discard)(version)

    @rule(name=engines)
    def die(self, name: str) -> None:
        engine = self.fleet[name]
        engine.up = False
        engine.slots.clear()

    @rule(name=engines)
    def come_back(self, name: str) -> None:
        if not self.fleet[name].up:
            self.start(self.fleet[name], self.planned(self.fleet[name])[0].share.merged)

    # What agents do

    @rule(name=engines)
    def act(self, name: str, *, impatient: bool = False) -> None:
        """One turn: load what is missing, withdraw, or end the boot when it may (and :class:`Leaving`), which
        it does in the end without others where it hurries."""
        engine = self.fleet[name]
        if not engine.up:
            return
        view, made = self.planned(engine)
        for version in made.load:
            assert engine.merged or RANKS[version] <= engine.rank, "no slot of the boot holds it"
            assert version not in engine.loaded, "a name was loaded twice in a boot"
            engine.loaded.append(version)
            if version in self.broken:
                engine.failed[version] = "broken"
        for version in made.serve:
            if version not in engine.failed:
                engine.slots.add(version)
        _, made = self.planned(engine)
        for version in made.withdraw:
            assert any(version in other.slots for other in self.others(engine)), "the last slot ended"
            engine.slots.discard(version)
        renewal = made.renewal
        if renewal is not None and (not renewal.needed or (impatient and renewal.hurries)):
            if not renewal.hurries:
                served = engine.slots.intersection(each.version for each in view.share.versions)
                assert served <= {version for other in self.others(engine) for version in other.slots}
            self.start(engine, view.share.merged, least=renewal.rank)

    def others(self, engine: Engine) -> list[Engine]:
        return [other for other in self.fleet.values() if other is not engine and other.up]

    @invariant()
    def capacity_holds(self) -> None:
        for engine in self.fleet.values():
            assert len(engine.loaded) <= (1 if engine.merged else NAMES)
            assert len(set(engine.loaded)) == len(engine.loaded)
            assert engine.slots <= set(engine.loaded)

    @invariant()
    def a_merged_engine_answers_as_one_version(self) -> None:
        for engine in self.fleet.values():
            assert engine.merged is None or engine.slots <= {engine.merged}

    def teardown(self) -> None:
        """Left alone, the fleet comes to rest, and everything that fits somewhere is served there."""
        self.broken.clear()
        for _ in range(30):
            before = self.picture()
            for name in ENGINES:
                self.come_back(name)
                self.act(name)
            if self.picture() == before:
                for name in ENGINES:
                    self.act(name, impatient=True)
            if self.picture() == before:
                break
        else:
            raise AssertionError("the fleet never comes to rest")
        for engine in self.fleet.values():
            view, made = self.planned(engine)
            assert made.load == ()
            wanted = {each.version for each in view.share.versions if not each.leaving}
            if made.renewal is None:
                assert wanted - set(engine.failed) <= engine.slots
            else:
                self.for_want_of_room(engine, made.renewal)

    def for_want_of_room(self, engine: Engine, renewal: Renewal) -> None:
        """Nothing else keeps a boot that is too small, once all engines are up again: what it serves finds no
        name on any other engine that could serve it meanwhile."""
        assert renewal.rank > engine.rank
        owners = given(self.tenants.values())
        alike = [other for other in self.others(engine) if owners.get(other.name) == owners.get(engine.name)]
        shares = {other.name: self.planned(other)[0].share for other in alike}
        for version in renewal.needed:
            for other in alike:
                held = {each.version for each in shares[other.name].versions}
                assert len(held) == NAMES or version in held & set(other.failed), (version, other)

    def picture(self) -> list[object]:
        return [
            (each.boot, each.up, tuple(each.loaded), frozenset(each.slots)) for each in self.fleet.values()
        ]


class Leaving(RuleBasedStateMachine):
    """A slot under a lease is never evicted: one boot that is to end for a fresh one, which routers hear a
    moment later, and what they had sent or send until then."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0.0
        self.began: list[float] = []
        """Of each request under way."""
        self.drain = vacating(CADENCE)
        self.ended = False
        self.look()

    @rule()
    def ask(self) -> None:
        if self.clock < CADENCE.quiet:
            assert not self.ended, "a boot ended before routers had heard"
            self.began.append(self.clock)

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        if self.began:
            self.began.remove(data.draw(st.sampled_from(self.began)))

    @rule(seconds=st.sampled_from([CADENCE.quiet / 3, CADENCE.drain, Timeouts().whole - CADENCE.quiet / 3]))
    def wait(self, seconds: float) -> None:
        """A router ends what lasts too long."""
        self.clock += seconds
        self.began = [began for began in self.began if self.clock - began < Timeouts().whole]

    @rule()
    def look(self) -> None:
        if not self.ended:
            over = self.drain.over(self.clock, running=len(self.began), made=self.clock)
            self.ended = over is not None
            assert not (self.ended and self.began), "a boot ended under a request"

    def teardown(self) -> None:
        """What never ends holds it up no longer than a router would wait."""
        for _ in range(4):
            self.look()
            self.wait(Timeouts().whole)
        assert self.ended


Fleet.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestFleet = Fleet.TestCase
Leaving.TestCase.settings = settings(max_examples=300, stateful_step_count=12, deadline=None)
TestLeaving = Leaving.TestCase


def test_an_engine_knows_whether_one_that_serves_for_the_same_is_away() -> None:
    fleet = Fleet()
    views = [fleet.planned(fleet.fleet["one"])[0]]
    fleet.die("two")
    views.append(fleet.planned(fleet.fleet["one"])[0])
    fleet.isolate("bank_a", Level.DEDICATED, "two")  # nobody's shared engine any more
    views.append(fleet.planned(fleet.fleet["one"])[0])
    views.append(outlook(fleet.state(), "three", NOW, gone={"two"}))
    assert [view.away for view in views] == [False, True, False, False]
