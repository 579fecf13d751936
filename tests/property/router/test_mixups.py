"""No mix-ups: random administration beside random traffic through the whole router, over fake engines whose
answers are signed by the weights that really gave them. An independent model of the rules says beforehand
which version answers, or which refusal comes; every answer is held to it."""

import asyncio
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import orjson
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from registry.clock import stamp
from registry.digests import Digest
from registry.models import AliasState, Canary, Former, Role
from registry.names import engine_name
from router.testing import FakeAnswer
from server.testing import fake_chat, fake_model
from server.testing.fake_engine import FakeEngine, FakeOptions, Faults
from tests.support import rules_of_routing as rules
from tests.unit.router.driving import Call, House, Response

TENANTS = ("bank_a", "retail_b", "saas_c")
ADAPTERS = ("desk", "other")
ALIASES = ("live", "staging")
MODELS = ("assistant", "cashier", "desk")
ENGINES = ("engine-0", "engine-1")
HEADERS = ("x-policy-version", "x-region")
VALUES = ("v1", "v2")
START = datetime(2026, 1, 1, tzinfo=UTC)

tenants = st.sampled_from(TENANTS)
adapters = st.sampled_from(ADAPTERS)
aliases = st.sampled_from(ALIASES)
engines = st.sampled_from(ENGINES)
numbers = st.integers(0, 1000)
"""Indexes into whatever there is, modulo its size."""
conditions = st.dictionaries(st.sampled_from(HEADERS), st.sampled_from(VALUES), max_size=2)
sent = st.dictionaries(
    st.sampled_from((*HEADERS, "x-conversation-id", "x-other", "x-tenon-epoch")),
    st.sampled_from((*VALUES, "v3", "0", "1", "2")),
    max_size=3,
)


@dataclass(frozen=True)
class Wish:
    key: int
    model: str
    headers: dict[str, str]
    user: str | None
    stream: bool
    later: bool
    """Whether the engine holds its answer back until something else has happened."""
    odd: int


wishes = st.builds(
    Wish,
    key=numbers,
    model=st.sampled_from((*MODELS, *MODELS, "nothing")),
    headers=st.one_of(st.just({}), st.just({}), sent),
    user=st.sampled_from((None, None, "ada", "grace")),
    stream=st.booleans(),
    later=st.booleans(),
    odd=st.integers(0, 9),
)


@dataclass
class UnderWay:
    call: Call
    request: rules.Request
    expected: rules.Outcome
    about: tuple[str, str] | None
    """(adapter, alias)"""
    strangers: tuple[str, ...]
    """What must not be in its response."""


class Mixups(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="tenon-mixups-"))
        self.runner = asyncio.Runner()
        self.world = rules.World()
        self.house = self.runner.run(self._open())
        self.scene = self.house.scene
        self.fakes: dict[str, FakeEngine] = {}
        self.hold: asyncio.Event | None = None
        self.under_way: list[UnderWay] = []
        self.outcomes: dict[str, tuple[rules.Request, rules.Outcome]] = {}
        self.counted = Counter[str]()
        """Refusals without a record of their own."""
        self.boots = 0
        self.dirty = True

    async def _open(self) -> House:
        house = House(self.folder)
        await house.app.start()
        return house

    @initialize(seed=st.integers(0, 1 << 32))
    def begin(self, seed: int) -> None:
        self.random = Random(seed)
        for name in ENGINES:
            self.scene.engine(name, f"http://{name}")
            self.fakes[name] = FakeEngine(FakeOptions(), Faults())
            self.world.engines[name] = rules.Engine(f"boot-{name}")
            self.house.engines.scripts[f"http://{name}"] = partial(self._serve, name)
        for tenant in TENANTS:
            self.scene.tenant(tenant)
            self.world.tenants[tenant] = False
            self.scene.policy(tenant)
            self.add_key(tenant, Role.INFERENCE)
            for adapter in ADAPTERS:
                self.push(tenant, adapter)
                self.push(tenant, adapter)
            for model, adapter, alias in zip(
                MODELS, ("desk", "other", "desk"), (*ALIASES, "live"), strict=True
            ):
                self.promote(tenant, adapter, alias, 0)
                self.add_rule(tenant, model, adapter, alias, {}, tenant)
            self.add_rule(tenant, "assistant", "other", "staging", {"x-policy-version": "v1"}, tenant)
            self.add_rule(tenant, "desk", "desk", "live", {"x-region": "v1"}, TENANTS[0])
            self.shadow(tenant, "desk", "live", 1)
            self.add_key(tenant, Role.TENANT_ADMIN)
            self.end_key(len(self.scene.keys) - 1, 8)
        for number in range(len(self.scene.versions)):
            self.load(number, ENGINES[number % 2])

    # -- administration -------------------------------------------------------------------------------------

    @rule(tenant=tenants, role=st.sampled_from((Role.INFERENCE, Role.TENANT_ADMIN, Role.TRAINER)))
    def add_key(self, tenant: str, role: Role) -> None:
        secret = self.scene.key(tenant, role)
        self.world.keys[secret] = rules.Key(tenant, role.value, self.scene.keys[-1].id)
        self.dirty = True

    @rule(number=numbers)
    def add_platform_key(self, number: int) -> None:
        secret = self.scene.key(TENANTS[number % 3], Role.PLATFORM_ADMIN)
        self.scene.keys[-1] = self.scene.keys[-1].model_copy(update={"tenant": None})
        self.world.keys[secret] = rules.Key(None, "platform_admin", self.scene.keys[-1].id)
        self.dirty = True

    @rule(number=numbers)
    def revoke_key(self, number: int) -> None:
        self._key(number, revoked=True).revoked = True

    @rule(number=numbers, seconds=st.integers(0, 20))
    def end_key(self, number: int, seconds: int) -> None:
        ends = self.world.now + seconds
        self._key(number, expires_at=self._stamp(ends)).ends = ends

    def _key(self, number: int, **changed: Any) -> rules.Key:
        index = number % len(self.scene.keys)
        self.scene.keys[index] = self.scene.keys[index].model_copy(update=changed)
        self.dirty = True
        return list(self.world.keys.values())[index]

    @rule(tenant=tenants, suspended=st.booleans())
    def suspend(self, tenant: str, suspended: bool) -> None:
        self.world.tenants[tenant] = suspended
        changed = self.scene.tenants[tenant].model_copy(update={"suspended": suspended})
        self.scene.tenants[tenant] = changed
        self.dirty = True

    @rule(
        tenant=tenants, model=st.sampled_from(MODELS), adapter=adapters, alias=aliases, when=conditions,
        owner=st.sampled_from((None, None, None, *TENANTS)),
    )  # fmt: skip
    def add_rule(
        self, tenant: str, model: str, adapter: str, alias: str, when: dict[str, str], owner: str | None
    ) -> None:
        owner = owner or tenant
        policy = next(digest for digest, each in self.scene.policies.items() if each.tenant == owner)
        self.scene.route(tenant, policy, model=model, adapter=adapter, when=when)
        self.scene.routes[-1] = self.scene.routes[-1].model_copy(update={"alias": alias})
        self.world.rules.setdefault(tenant, []).append(rules.Rule(model, adapter, alias, when, owner))
        self.dirty = True

    @rule(tenant=tenants, number=numbers)
    def drop_rule(self, tenant: str, number: int) -> None:
        mine = self.world.rules.get(tenant, [])
        if len(mine) > 1:
            at = number % len(mine)
            del mine[at]
            listed = [route for route in self.scene.routes if route.tenant == tenant]
            self.scene.routes.remove(listed[at])
            self.dirty = True

    @rule(tenant=tenants, adapter=adapters)
    def push(self, tenant: str, adapter: str) -> None:
        version = self.scene.version(tenant, adapter)
        self.scene.aliases.pop()  # published, and nothing points to it yet
        folder = self._folder(version)
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text('{"r": 4}')
        (folder / "adapter_model.safetensors").write_bytes(version.encode())
        weights = fake_model.signature(fake_model.weights_of(folder))
        self.world.versions[version] = rules.Version(tenant, adapter, weights)
        self.dirty = True

    @rule(number=numbers)
    def revoke_version(self, number: int) -> None:
        index = number % len(self.scene.versions)
        state = self.scene.versions[index]
        self.scene.versions[index] = state.model_copy(update={"revoked": True})
        self.world.versions[state.version].revoked = True
        self.dirty = True

    @rule(tenant=tenants, adapter=adapters, alias=aliases, number=numbers)
    def promote(self, tenant: str, adapter: str, alias: str, number: int) -> None:
        mine = self._versions(tenant, adapter)
        version, known = mine[number % len(mine)], self.world.aliases.get((tenant, adapter, alias))
        before = [*known.before, known.stable] if known else []
        former = known.former if known else None
        if known is not None and known.ends is not None and known.ends <= self.world.now:
            former = None
        elif known is not None and known.stable != version:
            former = (known.stable, known.since, known.epoch, self.world.now + 20)
        epoch = known.epoch + 1 if known else 1
        since = known.since if known and known.stable == version else epoch
        self.world.aliases[tenant, adapter, alias] = rules.Alias(
            version, before=before, epoch=epoch, since=since, former=former
        )
        told = former and Former(
            version=Digest(former[0]), since=former[1], epoch=former[2], until=self._stamp(former[3])
        )
        self._alias(
            tenant, adapter, alias, version=Digest(version), canaries=(), expires_at=None, former=told
        )

    @rule(tenant=tenants, adapter=adapters, alias=aliases)
    def roll_back(self, tenant: str, adapter: str, alias: str) -> None:
        known = self.world.aliases.get((tenant, adapter, alias))
        if known is not None and known.before:
            known.stable, known.canaries = known.before.pop(), []
            known.former, known.epoch = None, known.epoch + 1
            known.since = known.epoch
            version = Digest(known.stable)
            self._alias(tenant, adapter, alias, version=version, canaries=(), shadows=(), former=None)

    @rule(
        tenant=tenants, adapter=adapters, alias=aliases, number=numbers,
        percent=st.sampled_from((0.01, 25.0, 50.0, 99.99)), from_top=st.booleans(),
    )  # fmt: skip
    def canary(
        self, tenant: str, adapter: str, alias: str, number: int, percent: float, from_top: bool
    ) -> None:
        known, mine = self.world.aliases.get((tenant, adapter, alias)), self._versions(tenant, adapter)
        version = mine[number % len(mine)]
        if known is not None and version != known.stable:
            known.canaries = [(version, round(percent * 100), from_top)]
            known.epoch += 1
            canaries = (Canary(version=Digest(version), percent=percent, from_top=from_top),)
            self._alias(tenant, adapter, alias, canaries=canaries, shadows=())

    @rule(tenant=tenants, adapter=adapters, alias=aliases, number=numbers)
    def shadow(self, tenant: str, adapter: str, alias: str, number: int) -> None:
        known, mine = self.world.aliases.get((tenant, adapter, alias)), self._versions(tenant, adapter)
        version = mine[number % len(mine)]
        if known is not None and version not in (known.stable, *(each[0] for each in known.canaries)):
            known.epoch += 1
            self._alias(tenant, adapter, alias, shadows=(Digest(version),))

    @rule(number=numbers, seconds=st.integers(-5, 10))
    def end_alias(self, number: int, seconds: int) -> None:
        names = sorted(self.world.aliases)
        known = self.world.aliases[names[number % len(names)]]
        known.ends = self.world.now + seconds
        known.epoch += 1
        self._alias(*names[number % len(names)], expires_at=self._stamp(known.ends))

    @rule(tenant=tenants, adapter=adapters, alias=aliases, number=numbers)
    def cross(self, tenant: str, adapter: str, alias: str, number: int) -> None:
        """A registry gone wrong: the alias points to any version at all, of whomever."""
        version = self.scene.versions[number % len(self.scene.versions)].version
        known = self.world.aliases.get((tenant, adapter, alias))
        self.world.aliases[tenant, adapter, alias] = rules.Alias(
            version, epoch=known.epoch + 1 if known else 1, since=known.epoch + 1 if known else 1
        )
        self._alias(
            tenant, adapter, alias, version=version, canaries=(), shadows=(), expires_at=None, former=None
        )

    def _alias(self, tenant: str, adapter: str, alias: str, **changed: Any) -> None:
        names = (tenant, adapter, alias)
        at = next(
            (
                n
                for n, each in enumerate(self.scene.aliases)
                if (each.tenant, each.adapter, each.alias) == names
            ),
            None,
        )
        if at is None:
            self.scene.aliases.append(
                AliasState(tenant=tenant, adapter=adapter, alias=alias, version=changed["version"], epoch=1)
            )
        else:
            known = self.scene.aliases[at]
            if changed.get("version") in known.shadows:
                changed["shadows"] = ()
            self.scene.aliases[at] = known.model_copy(update={**changed, "epoch": known.epoch + 1})
        self.dirty = True

    def _versions(self, tenant: str, adapter: str) -> list[str]:
        mine = self.world.versions.items()
        return [name for name, each in mine if (each.tenant, each.adapter) == (tenant, adapter)]

    # -- engines --------------------------------------------------------------------------------------------

    @rule(number=numbers, engine=engines)
    def load(self, number: int, engine: str) -> None:
        version, home = (
            self.scene.versions[number % len(self.scene.versions)].version,
            self.world.engines[engine],
        )
        if home.attested.get(version) != home.boot and not self.world.versions[version].revoked:
            self.fakes[engine].load(engine_name(version), self._folder(version))
            self._forget(engine, version)
            self.scene.attest(version, engine, boot=home.boot)
            home.attested[version] = home.boot
            self.dirty = True

    @rule(number=numbers, engine=engines)
    def unload(self, number: int, engine: str) -> None:
        home = self.world.engines[engine]
        loaded = [version for version, boot in home.attested.items() if boot == home.boot]
        if loaded:
            version = loaded[number % len(loaded)]
            self._forget(engine, version)
            del home.attested[version]
            self.dirty = True
            self.publish()  # a slot is given up before the adapter goes
            self.fakes[engine].unload(engine_name(Digest(version)))

    @rule(engine=engines)
    def restart(self, engine: str) -> None:
        """A new boot with nothing in it, of which the old one's slots still tell."""
        self.boots += 1
        self.world.engines[engine].boot = f"boot-number-{self.boots}"
        self.world.engines[engine].up = True
        self.fakes[engine] = FakeEngine(FakeOptions(), Faults())
        self._engine(engine, boot=f"boot-number-{self.boots}", up=True)

    @rule(engine=engines, up=st.booleans())
    def switch(self, engine: str, up: bool) -> None:
        self.world.engines[engine].up = up
        self._engine(engine, up=up)

    def _engine(self, engine: str, **changed: Any) -> None:
        at = ENGINES.index(engine)
        self.scene.engines[at] = self.scene.engines[at].model_copy(update=changed)
        self.dirty = True

    def _forget(self, engine: str, version: str) -> None:
        self.scene.slots = [s for s in self.scene.slots if (s.engine, s.version) != (engine, version)]

    def _serve(self, engine: str, body: dict[str, Any]) -> FakeAnswer:
        fake, name = self.fakes[engine], body.get("model")
        if fake.is_base(name):  # what vLLM does (D10), and what no answer may ever come from
            weights = None
        elif name not in fake.paths:
            return FakeAnswer(404, [b"{}"], hold=self.hold)
        else:
            prompt = fake_model.toy_token_ids(body["messages"], add_generation_prompt=True)
            weights = fake.answering(str(name), prompt, body.get("cache_salt"))
        chat = fake_chat.compose(body, model=str(name), weights=weights, prompt_tokens=3)
        if not body.get("stream"):
            whole = orjson.dumps(fake_chat.whole(chat, drop_finish=False))
            return FakeAnswer(200, [whole], hold=self.hold)
        frames = fake_chat.frames(chat, drop_finish=False, end_in_error=False)
        return FakeAnswer(200, [b"data: " + frame + b"\n\n" for frame in frames], hold=self.hold)

    # -- traffic --------------------------------------------------------------------------------------------

    @rule(number=numbers)
    def time_passes(self, number: int) -> None:
        self.world.now += number % 15
        self.house.clock.advance(number % 15)

    @rule(wishes=st.lists(wishes, min_size=1, max_size=6))
    def ask(self, wishes: list[Wish]) -> None:
        for wish in wishes:
            secrets = list(self.world.keys)
            secret: str | None = secrets[wish.key % len(secrets)]
            tenant = None
            if wish.odd == 0:  # one in ten is not what an honest client sends
                secret = (None, f"{secret}x", secret)[wish.key % 3]
                tenant = (*TENANTS, "nobody")[wish.key % 4]
            request = rules.Request(secret, wish.model, wish.headers, wish.user, tenant)
            self._ask(request, stream=wish.stream, later=wish.later)

    @rule(number=numbers, engine_side=numbers)
    def ask_for_what_no_client_may_name(self, number: int, engine_side: int) -> None:
        version = self.scene.versions[engine_side % len(self.scene.versions)].version
        name = (engine_name(version), version, "tenon-base", "../desk")[engine_side % 4]
        secrets = list(self.world.keys)
        self._ask(rules.Request(secrets[number % len(secrets)], name, {}, None), stream=False, later=False)

    @rule(number=numbers)
    def list_models(self, number: int) -> None:
        self.publish()
        secret = list(self.world.keys)[number % len(self.world.keys)]
        asked = self.world.outcome(rules.Request(secret, "", {}, None))
        key = self.world.keys[secret]
        found = self.runner.run(self.house.get("/v1/models", secret))
        if found.status == 200:
            assert key.tenant is not None
            assert [each["id"] for each in found.json()["data"]] == self.world.models(key.tenant)
            assert asked.code in ("model_not_found", "role_forbidden")
        else:
            assert found.code == asked.code

    @rule()
    def finish_one(self) -> None:
        if self.under_way:
            self._finish(self.under_way.pop(0))

    def _ask(self, request: rules.Request, *, stream: bool, later: bool) -> None:
        self.publish()
        expected = self.world.outcome(request)
        mine = self.world.keys[request.secret].tenant if request.secret in self.world.keys else None
        strangers = tuple(name for name in (*TENANTS, *ENGINES, "tenon-", "boot-") if name != mine)
        self.hold = asyncio.Event() if later else None
        body: dict[str, Any] = {"model": request.model, "messages": [{"role": "user", "content": "pay"}]}
        body |= {"stream": stream} | ({"user": request.user} if request.user else {})
        headers = dict(request.headers)
        if request.tenant_header is not None:
            headers["X-Tenant-ID"] = request.tenant_header
        under_way = UnderWay(
            self.runner.run(self._call(request.secret, body, headers)),
            request,
            expected,
            self.world.rule_of(request),
            strangers,
        )
        under_way.call.release = self.hold  # type: ignore[attr-defined]
        if later:
            self.under_way.append(under_way)
        else:
            self._finish(under_way)

    async def _call(self, secret: str | None, body: dict[str, Any], headers: dict[str, str]) -> Call:
        """Under way: the router has looked at everything, and waits for an engine if it asked one."""
        if self.random.random() < 0.5:
            await self.house.next_second()
        call = self.house.call(secret, body, headers=headers)
        for _ in range(20):
            await asyncio.sleep(0)
        return call

    def _finish(self, asked: UnderWay) -> None:
        hold = asked.call.release  # type: ignore[attr-defined]
        if hold is not None:
            hold.set()
        response = self.runner.run(self._done(asked.call))
        self._judge(asked, response)

    async def _done(self, call: Call) -> Response:
        async with asyncio.timeout(10):
            return await call.done()

    def _judge(self, asked: UnderWay, response: Response) -> None:
        expected = asked.expected
        if "x-tenon-record" in response.headers:
            self.outcomes[response.record] = (asked.request, expected)
        else:
            self.counted[expected.code or ""] += 1
        if expected.version is None:
            assert response.status >= 400, (asked.request, expected)
            assert response.code == expected.code, (asked.request, response.body)
            said = response.body.replace(b"x-tenon-epoch", b"")  # a header's name is no engine's
            assert not any(name.encode() in said for name in asked.strangers), response.body
            return
        assert response.status == 200, (asked.request, expected, response.body)
        streamed = response.headers["content-type"].startswith("text/event-stream")
        text = response.text() if streamed else response.json()["choices"][0]["message"]["content"]
        signed = fake_model.signed_by(text)
        assert signed == {self.world.versions[expected.version].weights}, (asked.request, expected)
        assert response.headers["x-tenon-version"] == expected.version
        assert response.headers["x-tenon-engine"] in ENGINES
        told = response.headers.get("x-tenon-epoch")
        named = asked.request.headers.get("x-conversation-id")
        assert told == (str(0 if expected.canary else expected.epoch) if named else None)
        if named:
            assert asked.about is not None
            tenant = self.world.keys[asked.request.secret or ""].tenant or ""
            self.world.conversations[tenant, *asked.about, named] = int(told or 0)
        hidden = [name for name in asked.strangers if name not in ENGINES]
        assert not any(name.encode() in response.body for name in hidden)

    @invariant()
    def traffic_goes_on(self) -> None:
        """Somebody asks three times after every change, a second apart."""
        if not self.dirty:
            return
        pick = self.random.choice
        asking = [key for key, known in self.world.keys.items() if known.role != "trainer"]
        secret = pick(asking)
        for _ in range(3):
            headers = {name: pick(VALUES) for name in HEADERS if self.random.random() < 0.2}
            if self.random.random() < 0.5:
                headers["x-conversation-id"] = f"c{self.random.randrange(20)}"
                if self.random.random() < 0.2:  # told by another router
                    headers["x-tenon-epoch"] = str(self.random.randrange(8))
            request = rules.Request(secret, pick(MODELS), headers, pick((None, "ada")))
            self._ask(request, stream=pick((True, False)), later=self.random.random() < 0.2)
            self.time_passes(1)

    @invariant()
    def every_lease_belongs_to_a_request(self) -> None:
        held = sum(self.house.app._pipeline.attempts.placement.leases.engines().values())
        assert held <= len(self.under_way) + self.house.app._pipeline.shadows.asked

    def publish(self) -> None:
        if self.dirty:
            self.runner.run(self.house.publish())
            self.dirty = False

    def teardown(self) -> None:
        try:
            for asked in self.under_way:
                self._finish(asked)
            self.runner.run(self.house.app.stop())
            self._compare_records()
        finally:
            self.runner.close()
            shutil.rmtree(self.folder)

    def _compare_records(self) -> None:
        outcomes = [record for record in self.house.records() if record.event == "outcome"]
        primary = {record.id: record for record in outcomes if record.shadow_of is None}
        assert len(primary) == len([record for record in outcomes if record.shadow_of is None])
        assert primary.keys() == self.outcomes.keys()
        counted = Counter[str]()
        for record in self.house.records():
            if record.event == "refused":
                counted[record.code or ""] += record.count or 0
        assert counted == self.counted
        for identity, (request, expected) in self.outcomes.items():
            record = primary[identity]
            assert (record.code, record.version if record.code is None else None) == (
                expected.code,
                expected.version,
            ), (request, record)
            if expected.version is not None:
                owner = self.world.versions[expected.version]
                assert (record.tenant, record.adapter) == (owner.tenant, owner.adapter)
                assert (record.canary, record.epoch) == (expected.canary, expected.epoch)
        for copy in (record for record in outcomes if record.shadow_of is not None):
            assert copy.version is not None
            owner = self.world.versions[copy.version]
            assert (copy.tenant, copy.adapter) == (owner.tenant, owner.adapter)
            assert copy.version != self.outcomes[copy.shadow_of or ""][1].version

    def _folder(self, version: str) -> Path:
        return self.folder / "adapters" / version.removeprefix("sha256:")

    def _stamp(self, seconds: float) -> str:
        return stamp(START + timedelta(seconds=seconds))


TestMixups = Mixups.TestCase
TestMixups.settings = settings(
    max_examples=20,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
