"""Copies for shadow versions: after the answer, bounded, recorded in pairs, and nobody's trouble."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from registry.assignment import assigned
from registry.digests import Digest
from registry.models import Canary, ClientSchema
from registry.names import engine_name
from router.errors import NothingSent
from router.records import Record
from router.shadowing import ShadowLimits
from router.testing import FakeAnswer, completion, honest
from tests.unit.router.conftest import SCHEMA
from tests.unit.router.driving import QUESTION, House, Response, until


class Shadowed:
    """A house whose one alias has a stable version and a shadow, on two engines."""

    def __init__(self, house: House, schema: dict[str, Any] | None = None, **policy: Any) -> None:
        self.house = house
        house.scene.engine()
        house.scene.engine("engine-1", "http://engine-1")
        self.secret = house.scene.serve("bank_a", schema, **policy)
        self.stable = house.scene.versions[0].version
        self.shadow = house.scene.version("bank_a")
        house.scene.attest(self.shadow, "engine-1")
        house.scene.aliases = [house.scene.aliases[0].model_copy(update={"shadows": (self.shadow,)})]
        house.engines.script = self.answer
        self.replies: dict[Digest, Any] = {}
        """Version -> script, instead of an honest answer."""

    def answer(self, body: dict[str, Any]) -> FakeAnswer:
        asked = self.shadow if body["model"] == engine_name(self.shadow) else self.stable
        found: FakeAnswer = self.replies.get(asked, honest("fine"))(body)
        return found

    async def asked(self, count: int) -> None:
        await until(lambda: len(self.of_shadow()) == count)

    def of_shadow(self) -> list[Any]:
        return [each for each in self.house.engines.asked if each.body["model"] == engine_name(self.shadow)]

    def copies(self) -> list[Record]:
        return [record for record in self.house.records() if record.shadow_of is not None]

    async def copy(self) -> Record:
        await until(lambda: bool(self.copies()))
        (found,) = self.copies()
        return found

    async def metric(self, name: str) -> float:
        text = (await self.house.get("/metrics")).body.decode()
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


@pytest.fixture
async def shadowed(tmp_path: Path) -> AsyncIterator[Shadowed]:
    house = House(tmp_path, shadows=ShadowLimits(waiting=2, at_once=1, seconds=30))
    found = Shadowed(house)
    await house.app.start()
    await house.publish()
    try:
        yield found
    finally:
        await house.app.stop()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_copy_is_asked_and_recorded_beside_its_primary(shadowed: Shadowed, stream: bool) -> None:
    response = await shadowed.house.ask(shadowed.secret, {"stream": stream})
    assert response.headers["x-tenon-version"] == shadowed.stable
    record, primary = await shadowed.copy(), shadowed.house.outcome(response)
    assert record.shadow_of == primary.id != record.id
    assert (record.version, record.engine, record.stream) == (shadowed.shadow, "engine-1", stream)
    assert (record.status, record.agrees, record.finish_reasons) == (200, True, ("stop",))
    for same in ("tenant", "key", "route", "policy", "model", "alias", "epoch", "request", "surface"):
        assert getattr(record, same) == getattr(primary, same), same
    assert (record.prompt_tokens, record.completion_tokens) == (7, 3)
    mine, copy = (each.body for each in shadowed.house.engines.asked)
    assert copy | {"model": ""} == mine | {"model": ""}
    assert not await shadowed.metric("tenon_shadows_dropped_total")


@pytest.mark.parametrize("stream", [False, True])
async def test_another_answer_is_told_apart(shadowed: Shadowed, stream: bool) -> None:
    shadowed.replies[shadowed.shadow] = honest("otherwise")
    await shadowed.house.ask(shadowed.secret, {"stream": stream})
    record = await shadowed.copy()
    assert (record.status, record.agrees) == (200, False)


def embedding(number: float) -> Any:
    def script(body: dict[str, Any]) -> FakeAnswer:
        data = [{"object": "embedding", "index": 0, "embedding": [number]}]
        said = {"object": "list", "model": body["model"], "data": data, "usage": {"prompt_tokens": 1}}
        return FakeAnswer(200, [orjson.dumps(said)])

    return script


@pytest.mark.parametrize("number", [1.0, 2.0])
async def test_embeddings_agree_when_their_numbers_do(shadowed: Shadowed, number: float) -> None:
    shadowed.replies |= {shadowed.stable: embedding(1.0), shadowed.shadow: embedding(number)}
    question = {"model": "assistant", "input": ["a"]}
    primary = await shadowed.house.call(shadowed.secret, question, path="/v1/embeddings").done()
    record = await shadowed.copy()
    assert (record.status, record.agrees) == (200, number == 1.0)
    assert record.answer_of == "body"
    assert (record.answer == Digest.of(primary.body)) == (number == 1.0)


async def test_a_copy_is_no_request_of_the_tenants(shadowed: Shadowed) -> None:
    await shadowed.house.ask(shadowed.secret)
    await shadowed.copy()
    text = (await shadowed.house.get("/metrics")).body
    assert b'tenon_requests_total{code="ok"' in text or b"tenon_requests_total" in text
    counted = [line for line in text.splitlines() if line.startswith(b"tenon_requests_total{")]
    assert sum(float(line.split()[-1]) for line in counted) == 1
    tokens = [line for line in text.splitlines() if line.startswith(b"tenon_tokens_total{")]
    assert sum(float(line.split()[-1]) for line in tokens) == 10


async def test_a_hanging_shadow_delays_nobody_and_a_full_queue_drops(shadowed: Shadowed) -> None:
    hold = asyncio.Event()

    def hang(body: dict[str, Any]) -> FakeAnswer:
        return FakeAnswer(200, [orjson.dumps(completion(body))], hold=hold)

    shadowed.replies[shadowed.shadow] = hang
    async with asyncio.timeout(5):
        for _ in range(6):
            assert (await shadowed.house.ask(shadowed.secret)).status == 200
    # One is being asked, two wait, and for three there was no room.
    await shadowed.asked(1)
    assert await shadowed.metric("tenon_shadows_waiting") == 2
    assert await shadowed.metric("tenon_shadows_dropped_total") == 3
    hold.set()
    await until(lambda: len(shadowed.copies()) == 3)
    assert len({record.shadow_of for record in shadowed.copies()}) == 3


async def crowded(shadowed: Shadowed, slots: int, *others: str) -> list[str]:
    """The shadow's engine has so many slots, and holds a version of each of these tenants. Their keys."""
    scene = shadowed.house.scene
    scene.engines = [each.model_copy(update={"max_loras": slots}) for each in scene.engines]
    secrets = [scene.serve(tenant) for tenant in others]
    mine = {each.version for each in scene.versions if each.tenant in others}
    scene.slots = [each for each in scene.slots if each.version not in mine]
    for version in mine:
        scene.attest(version, "engine-1")
    await shadowed.house.publish()
    return secrets


async def test_a_copy_takes_no_adapters_last_slot(shadowed: Shadowed) -> None:
    await crowded(shadowed, 1)
    assert (await shadowed.house.ask(shadowed.secret)).status == 200
    await until(lambda: shadowed.house.app._pipeline.shadows.dropped == 1)
    assert not shadowed.of_shadow()


async def test_a_copy_goes_where_its_version_is_at_work_already(shadowed: Shadowed) -> None:
    await crowded(shadowed, 1)
    (place,) = shadowed.house.app.feed.tables().places[shadowed.shadow].places
    assert shadowed.house.app._pipeline.attempts.queue.enter(place, "bank_a", shadowed.shadow)
    assert (await shadowed.house.ask(shadowed.secret)).status == 200
    assert (await shadowed.copy()).status == 200


async def test_a_copy_gives_its_slot_to_who_begins_to_wait(shadowed: Shadowed) -> None:
    first, second = await crowded(shadowed, 2, "retail_b", "retail_c")
    shadowed.replies[shadowed.shadow] = lambda _: FakeAnswer(200, [b"never"], hold=asyncio.Event())
    assert (await shadowed.house.ask(shadowed.secret)).status == 200
    await shadowed.asked(1)
    copy = shadowed.house.engines.answers[-1]
    hold = asyncio.Event()
    shadowed.house.engines.script = lambda body: FakeAnswer(200, [orjson.dumps(completion(body))], hold=hold)
    long = shadowed.house.call(first, QUESTION)  # the slot that the copy left free
    await until(lambda: len(shadowed.house.engines.asked) == 3)
    assert await shadowed.metric("tenon_shadows_dropped_total") == 0
    async with asyncio.timeout(5):
        late = shadowed.house.call(second, QUESTION)
        await until(lambda: len(shadowed.house.engines.asked) == 4)
        hold.set()
        assert [(await call.done()).status for call in (long, late)] == [200, 200]
    assert copy.closed
    assert await shadowed.metric("tenon_shadows_dropped_total") == 1
    shadowed.replies.clear()
    shadowed.house.engines.script = shadowed.answer
    assert (await shadowed.house.ask(shadowed.secret)).status == 200
    assert (await shadowed.copy()).status == 200, "whoever worked on the copy goes on with the next"


async def test_a_stop_ends_a_copy_that_is_called_back_too(tmp_path: Path) -> None:
    found = Shadowed(House(tmp_path, shadows=ShadowLimits(at_once=1)))
    await found.house.app.start()
    await found.house.publish()
    found.replies[found.shadow] = lambda _: FakeAnswer(200, [b"never"], hold=asyncio.Event())
    assert (await found.house.ask(found.secret)).status == 200
    await found.asked(1)
    lane = found.house.app._pipeline.attempts.queue._lanes["engine-1"]
    lane.recall()
    async with asyncio.timeout(5):
        await found.house.app.stop()
    assert (lane.running, lane.lent) == (0, set())


async def changed(shadowed: Shadowed, change: str) -> None:
    """Of the rules, while copies wait; in force when this returns."""
    scene = shadowed.house.scene
    match change:
        case "tenant":
            scene.tenants["bank_a"] = scene.tenants["bank_a"].model_copy(update={"suspended": True})
        case "key":
            scene.keys = [key.model_copy(update={"revoked": True}) for key in scene.keys]
        case "version":
            scene.slots = [slot for slot in scene.slots if slot.version != shadowed.shadow]
        case "shadow":
            scene.aliases = [alias.model_copy(update={"shadows": ()}) for alias in scene.aliases]
        case "policy":
            scene.routes[0] = scene.routes[0].model_copy(update={"policy": scene.policy("bank_a", name="b")})
        case "boot":
            scene.engines = [each.model_copy(update={"boot": "boot-2"}) for each in scene.engines]
    await shadowed.house.publish()


@pytest.mark.parametrize("change", ["tenant", "key", "version", "shadow", "policy", "boot"])
async def test_a_copy_that_waited_obeys_the_rules_of_its_turn(shadowed: Shadowed, change: str) -> None:
    hold = asyncio.Event()
    shadowed.replies[shadowed.shadow] = lambda body: FakeAnswer(
        200, [orjson.dumps(completion(body))], hold=hold
    )
    for _ in range(3):
        assert (await shadowed.house.ask(shadowed.secret)).status == 200
    await shadowed.asked(1)
    await changed(shadowed, change)
    hold.set()
    await until(lambda: shadowed.house.app._pipeline.shadows.dropped == 2)
    assert len(shadowed.of_shadow()) == 1
    await until(lambda: len(shadowed.copies()) == 1)
    assert await shadowed.metric("tenon_shadows_dropped_total") == 2


async def test_a_copy_that_waited_goes_to_the_engines_new_boot(shadowed: Shadowed) -> None:
    hold, scene = asyncio.Event(), shadowed.house.scene
    shadowed.replies[shadowed.shadow] = lambda body: FakeAnswer(
        200, [orjson.dumps(completion(body))], hold=hold
    )
    for _ in range(2):
        assert (await shadowed.house.ask(shadowed.secret)).status == 200
    await shadowed.asked(1)
    again = Digest.of(b"attested again")
    scene.engines = [each.model_copy(update={"boot": "boot-2"}) for each in scene.engines]
    scene.slots = [slot.model_copy(update={"boot": "boot-2", "attestation": again}) for slot in scene.slots]
    await shadowed.house.publish()
    hold.set()
    await until(lambda: len(shadowed.copies()) == 2)
    before, after = shadowed.copies()
    assert (after.boot, after.attestation) == ("boot-2", again)
    assert before.boot != after.boot


async def test_a_copy_has_its_own_patience(tmp_path: Path) -> None:
    found = Shadowed(House(tmp_path, shadows=ShadowLimits(seconds=0.05)))
    await found.house.app.start()
    await found.house.publish()
    found.replies[found.shadow] = lambda _: FakeAnswer(200, [b"never"], hold=asyncio.Event())
    assert (await found.house.ask(found.secret)).status == 200
    assert (await found.copy()).code == "engine_timeout"
    assert found.house.engines.answers[-1].closed
    await found.house.app.stop()


async def test_bodies_that_wait_are_bounded_together(tmp_path: Path) -> None:
    found = Shadowed(House(tmp_path, shadows=ShadowLimits(waiting_bytes=len(orjson.dumps(QUESTION)) - 1)))
    await found.house.app.start()
    await found.house.publish()
    assert (await found.house.ask(found.secret)).status == 200
    assert await found.metric("tenon_shadows_dropped_total") == 1
    assert not found.of_shadow()
    await found.house.app.stop()


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (lambda _: FakeAnswer(500, [b"dead"]), "engine_error"),
        (lambda _: FakeAnswer(400, [b"no"]), "request_rejected_by_engine"),
        (lambda _: FakeAnswer(200, [b"garbage"]), "engine_error"),
        (lambda body: honest()({**body, "model": "base"}), "engine_answer_mismatch"),
        (lambda _: _raise(NothingSent()), "engine_unavailable"),
        (lambda _: _raise(RuntimeError("a bug")), "internal"),
    ],
)  # fmt: skip
async def test_whatever_goes_wrong_is_the_copys_own(shadowed: Shadowed, reply: Any, code: str) -> None:
    shadowed.replies[shadowed.shadow] = reply
    for _ in range(2):
        assert (await shadowed.house.ask(shadowed.secret)).status == 200
    await until(lambda: len(shadowed.copies()) == 2)
    assert {(record.code, record.agrees) for record in shadowed.copies()} == {(code, None)}
    assert shadowed.house.app._pipeline.attempts.placement.leases.engines() == {}


def _raise(error: Exception) -> FakeAnswer:
    raise error


async def test_a_shadows_answer_must_satisfy_the_policy_too(tmp_path: Path) -> None:
    found = Shadowed(House(tmp_path), SCHEMA)
    await found.house.app.start()
    await found.house.publish()
    found.replies[found.stable] = honest('{"zeta":"a","amount":1}')
    found.replies[found.shadow] = honest('{"zeta":"a"}')
    assert (await found.house.ask(found.secret)).status == 200
    assert (await found.copy()).code == "output_invalid"
    await found.house.app.stop()


async def test_a_copy_is_judged_by_its_clients_schema(tmp_path: Path) -> None:
    found = Shadowed(House(tmp_path), SCHEMA, client_schema=ClientSchema.NARROW)
    await found.house.app.start()
    await found.house.publish()
    found.replies[found.stable] = honest('{"zeta":"a","amount":1}')
    found.replies[found.shadow] = honest('{"zeta":"b","amount":1}')
    narrower = {**SCHEMA, "properties": {"zeta": {"const": "a"}, "amount": {"type": "integer"}}}
    asked = {"type": "json_schema", "json_schema": {"name": "own", "schema": narrower, "strict": True}}
    assert (await found.house.ask(found.secret, {"response_format": asked})).status == 200
    assert (await found.copy()).code == "output_invalid"
    await found.house.app.stop()


async def test_a_refused_primary_has_no_copy(shadowed: Shadowed) -> None:
    shadowed.replies[shadowed.stable] = lambda _: FakeAnswer(500, [b"dead"])
    assert (await shadowed.house.ask(shadowed.secret)).status == 502
    assert (await shadowed.house.ask(shadowed.secret, {"model": "nothing"})).status == 404
    shadowed.replies.clear()
    answered = await shadowed.house.ask(shadowed.secret)
    assert (await shadowed.copy()).shadow_of == answered.record
    assert len(shadowed.of_shadow()) == 1


async def test_a_shadow_that_nobody_serves_or_that_is_anothers_is_never_asked(shadowed: Shadowed) -> None:
    scene = shadowed.house.scene
    foreign = scene.version("retail_b")
    scene.attest(foreign, "engine-1")
    unserved = scene.version("bank_a")
    mine = next(alias for alias in scene.aliases if alias.tenant == "bank_a")
    scene.aliases = [mine.model_copy(update={"shadows": (foreign, unserved)})]
    await shadowed.house.publish()
    assert (await shadowed.house.ask(shadowed.secret)).status == 200
    assert (await shadowed.house.ask(shadowed.secret, {"stream": True})).status == 200
    assert {each.body["model"] for each in shadowed.house.engines.asked} == {engine_name(shadowed.stable)}
    assert await shadowed.metric("tenon_shadows_asked_total") == 0


# -- canaries, over HTTP ----------------------------------------------------------------------------------


async def test_a_conversation_a_user_and_a_key_keep_their_version(house: House) -> None:
    secret = house.scene.serve("bank_a")
    canary = house.scene.version("bank_a")
    house.scene.attest(canary)
    canaries = (Canary(version=canary, percent=50),)
    alias = house.scene.aliases[0].model_copy(update={"canaries": canaries})
    house.scene.aliases = [alias]
    await house.publish()

    def said(response: Response) -> Digest:
        return Digest(response.headers["x-tenon-version"])

    seen = set()
    for number in range(20):
        talk = {"X-Conversation-Id": f"c{number}"}
        first = await house.ask(secret, headers=talk)
        again = await house.ask(secret, {"stream": True, "user": f"somebody {number}"}, headers=talk)
        assert said(first) == said(again) == assigned(alias, f"conversation c{number}")
        user = await house.ask(secret, {"user": f"u{number}"})
        assert said(user) == assigned(alias, f"user u{number}")
        seen |= {said(first), said(user)}
        assert house.outcome(first).canary is (said(first) == canary)
    assert seen == {alias.version, canary}
    key = house.scene.keys[0].id
    assert {said(await house.ask(secret)) for _ in range(5)} == {assigned(alias, f"key {key}")}
