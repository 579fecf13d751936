"""What waits is served under the rules of its turn, not under those of its arrival."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from registry.digests import Digest
from registry.models import OnInvalid, Retention
from registry.names import engine_name
from router.admission import Patience
from router.circuit import FAILURES
from router.errors import EngineUnavailable, NothingSent
from router.places import Place
from router.testing import FakeAnswer, completion, honest
from tests.unit.router.driving import QUESTION, Call, House, Response, until


class Busy:
    """bank_a's engine has one place, which another tenant holds until ``hold`` is set."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.hold = asyncio.Event()
        self.bank, self.shop = house.scene.serve("bank_a"), house.scene.serve("shop_b")
        self.version = house.scene.versions[0].version
        self.shops = engine_name(house.scene.versions[1].version)
        house.engines.script = self.answer

    def answer(self, body: dict[str, Any]) -> FakeAnswer:
        found = honest()(body)
        found.hold = self.hold if body["model"] == self.shops else None
        return found

    async def waiting(self) -> tuple[Call, Call]:
        """The request that holds the place, and bank_a's, which waits for it."""
        await self.house.publish()
        holding = self.house.call(self.shop, QUESTION)
        await until(lambda: len(self.house.engines.asked) == 1)
        waits = self.house.call(self.bank, QUESTION)
        await until(lambda: self.house.app.queue.waiting == 1)
        return holding, waits

    async def after(self, change: Callable[[], object]) -> Response:
        """What bank_a is answered when ``change`` happened while it waited."""
        holding, waits = await self.waiting()
        change()
        await self.house.publish()
        self.hold.set()
        await holding.done()
        found = await waits.done()
        assert all(lane.running == 0 for lane in self.house.app.queue._lanes.values())
        return found


@pytest.fixture
async def busy(tmp_path: Path) -> AsyncIterator[Busy]:
    house = House(tmp_path, patience=Patience(running=1, waiting=9, aging=5, longest=9))
    house.scene.engine()
    await house.app.start()
    try:
        yield Busy(house)
    finally:
        await house.app.stop()


async def test_what_waits_while_nothing_changes_is_answered(busy: Busy) -> None:
    found = await busy.after(lambda: None)
    assert found.status == 200
    assert busy.house.outcome(found).version == busy.version


async def test_a_key_revoked_meanwhile_gets_nothing(busy: Busy) -> None:
    keys = busy.house.scene.keys

    def revoke() -> None:
        keys[0] = keys[0].model_copy(update={"revoked": True})

    found = await busy.after(revoke)
    assert (found.status, found.code) == (401, "invalid_api_key")
    assert len(busy.house.engines.asked) == 1
    assert busy.house.outcome(found).engine is None


async def test_a_key_that_expired_meanwhile_gets_nothing(busy: Busy) -> None:
    keys, clock = busy.house.scene.keys, busy.house.clock
    keys[0] = keys[0].model_copy(update={"expires_at": "2100-01-01T00:00:00Z"})
    found = await busy.after(lambda: clock.advance(3_000_000_000))
    assert (found.status, found.code) == (401, "invalid_api_key")


async def test_a_tenant_suspended_meanwhile_gets_nothing(busy: Busy) -> None:
    tenants = busy.house.scene.tenants

    def suspend() -> None:
        tenants["bank_a"] = tenants["bank_a"].model_copy(update={"suspended": True})

    found = await busy.after(suspend)
    assert (found.status, found.code) == (403, "tenant_suspended")
    assert len(busy.house.engines.asked) == 1


async def test_a_version_that_is_gone_meanwhile_answers_nothing(busy: Busy) -> None:
    def unload() -> None:
        busy.house.scene.slots = [slot for slot in busy.house.scene.slots if slot.version != busy.version]

    found = await busy.after(unload)
    assert (found.status, found.code) == (503, "adapter_not_ready")
    assert len(busy.house.engines.asked) == 1


def reboot(house: House) -> None:
    scene = house.scene
    scene.engines = [engine.model_copy(update={"boot": "boot-2"}) for engine in scene.engines]
    again = Digest.of(b"attested again")
    scene.slots = [slot.model_copy(update={"boot": "boot-2", "attestation": again}) for slot in scene.slots]


async def test_a_key_that_is_anothers_meanwhile_opens_nothing_of_either(busy: Busy) -> None:
    scene = busy.house.scene

    def give_away() -> None:
        scene.keys = [key.model_copy(update={"tenant": "shop_b"}) for key in scene.keys]

    found = await busy.after(give_away)
    assert (found.status, found.code) == (401, "invalid_api_key")
    assert len(busy.house.engines.asked) == 1


async def test_an_engine_that_was_started_again_is_named_by_its_new_boot(busy: Busy) -> None:
    found = await busy.after(lambda: reboot(busy.house))
    assert found.status == 200
    record = busy.house.outcome(found)
    assert (record.boot, record.attestation) == ("boot-2", Digest.of(b"attested again"))


async def test_what_was_promoted_meanwhile_answers(busy: Busy) -> None:
    scene = busy.house.scene

    def promote() -> None:
        newer = scene.version("bank_a", alias="next")
        scene.attest(newer)
        scene.aliases = [
            alias.model_copy(update={"version": newer, "epoch": 2})
            if alias.version == busy.version
            else alias
            for alias in scene.aliases
        ]

    found = await busy.after(promote)
    record = busy.house.outcome(found)
    assert (found.status, record.epoch) == (200, 2)
    assert record.version == scene.versions[2].version
    assert busy.house.engines.asked[-1].body["model"] == engine_name(scene.versions[2].version)


async def test_a_record_names_what_was_promoted_meanwhile_though_nobody_could_be_asked(busy: Busy) -> None:
    scene = busy.house.scene
    scene.engine("engine-1", "http://engine-1")

    def promote() -> None:
        newer = scene.version("bank_a", alias="next")
        scene.attest(newer, "engine-1")
        scene.aliases[0] = scene.aliases[0].model_copy(update={"version": newer, "epoch": 2})
        away = Place("engine-1", "boot-engine-1", "http://engine-1", Digest.of(b"any"), 8)
        for _ in range(FAILURES):
            busy.house.app._pipeline.attempts.placement.circuits.failed(away, NothingSent())

    found = await busy.after(promote)
    record = busy.house.outcome(found)
    assert (found.status, found.code, record.engine) == (503, "engine_unavailable", None)
    assert (record.version, record.epoch) == (scene.versions[-1].version, 2)


async def test_under_another_policy_it_must_be_asked_again(busy: Busy) -> None:
    scene = busy.house.scene

    def change() -> None:
        policy = scene.policy("bank_a", name="private", retention=Retention.NONE)
        scene.routes[0] = scene.routes[0].model_copy(update={"policy": policy})

    found = await busy.after(change)
    assert (found.status, found.code) == (503, "router_not_ready")
    assert len(busy.house.engines.asked) == 1


async def test_a_router_that_lost_touch_meanwhile_sends_it_away(busy: Busy) -> None:
    def lose() -> None:
        busy.house.now += 301

    holding, waits = await busy.waiting()
    lose()
    busy.hold.set()
    await holding.done()
    assert (await waits.done()).code == "router_not_ready"


async def revoked(house: House) -> None:
    """Every key is; in force when this returns."""
    house.scene.keys = [key.model_copy(update={"revoked": True}) for key in house.scene.keys]
    await house.publish()


async def test_an_answer_is_asked_for_again_only_by_who_still_may(house: House) -> None:
    secret = house.scene.serve("bank_a", {"type": "array"}, on_invalid=OnInvalid.RETRY)
    await house.publish()
    hold = asyncio.Event()

    def script(body: dict[str, Any]) -> FakeAnswer:
        return FakeAnswer(200, [orjson.dumps(completion(body, "no list"))], hold=hold)

    house.engines.script = script
    call = house.call(secret, QUESTION)
    await until(lambda: len(house.engines.asked) == 1)
    await revoked(house)
    hold.set()
    found = await call.done()
    assert (found.status, found.code) == (401, "invalid_api_key")
    assert len(house.engines.asked) == 1


async def test_a_promotion_between_two_tries_keeps_the_second_one_another_draw(house: House) -> None:
    secret = house.scene.serve("bank_a", {"type": "array"}, on_invalid=OnInvalid.RETRY)
    await house.publish()
    hold, scene = asyncio.Event(), house.scene

    def script(body: dict[str, Any]) -> FakeAnswer:
        said = "[1]" if len(house.engines.asked) > 1 else "no list"
        return FakeAnswer(200, [orjson.dumps(completion(body, said))], hold=hold)

    house.engines.script = script
    call = house.call(secret, QUESTION)
    await until(lambda: len(house.engines.asked) == 1)
    newer = scene.version("bank_a", alias="next")
    scene.attest(newer)
    scene.aliases[0] = scene.aliases[0].model_copy(update={"version": newer, "epoch": 2})
    await house.publish()
    hold.set()
    found = await call.done()
    first, second = house.engines.asked
    assert (found.status, house.outcome(found).version) == (200, newer)
    assert second.body["model"] == engine_name(newer)
    assert second.body["seed"] != first.body.get("seed")
    assert second.body["temperature"] > first.body["temperature"]


async def test_another_engine_is_asked_only_for_who_still_may(house: House) -> None:
    house.scene.engine("engine-1", "http://engine-1")
    secret = house.scene.serve("bank_a")
    await house.publish()
    asks = house.engines.ask
    asked: list[str] = []

    async def breaking(url: str, body: bytes, traceparent: bytes = b"") -> Any:
        asked.append(url)
        if len(asked) == 1:
            await revoked(house)
            raise EngineUnavailable
        return await asks(url, body, traceparent)

    house.engines.ask = breaking  # type: ignore[method-assign]
    found = await house.ask(secret)
    assert (found.status, found.code, len(asked)) == (401, "invalid_api_key", 1)


async def test_who_was_revoked_while_sending_the_body_gets_nothing(house: House, bank: str) -> None:
    inbox, sent, reads = asyncio.Queue[Any](), list[Any](), list[int]()

    async def receive() -> Any:
        reads.append(1)
        return await inbox.get()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {bank}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
    task = asyncio.create_task(house.app(scope, receive, send))
    await until(lambda: bool(reads))
    await revoked(house)
    inbox.put_nowait({"type": "http.request", "body": orjson.dumps(QUESTION), "more_body": False})
    await task
    assert (sent[0]["status"], house.engines.asked) == (401, [])


async def breaking(house: House, at: int, *, moved: bool) -> tuple[Response, Digest]:
    """Two engines hold the version; the ``at``-th ask breaks off, while a newer version is promoted that only
    the engine asked just then holds, or (``moved``) only the other one."""
    house.scene.engine("engine-1", "http://engine-1")
    secret = house.scene.serve("bank_a", {"type": "array"}, on_invalid=OnInvalid.RETRY)
    await house.publish()
    asks, count, scene = house.engines.ask, itertools.count(1), house.scene
    newer = scene.version("bank_a", alias="next")

    async def ask(url: str, body: bytes, traceparent: bytes = b"") -> Any:
        if next(count) == at:
            scene.attest(newer, "engine-0" if ("engine-0" in url) != moved else "engine-1")
            scene.aliases[0] = scene.aliases[0].model_copy(update={"version": newer, "epoch": 2})
            await house.publish()
            raise EngineUnavailable
        return await asks(url, body, traceparent)

    house.engines.ask = ask  # type: ignore[method-assign]
    return await house.ask(secret), newer


async def test_an_order_made_anew_stays_the_second_draw(house: House) -> None:
    said = iter(["no list", "[1]"])
    house.engines.script = lambda body: FakeAnswer(200, [orjson.dumps(completion(body, next(said)))])
    found, newer = await breaking(house, 2, moved=True)
    first, second = house.engines.asked
    assert (found.status, second.body["model"]) == (200, engine_name(newer))
    assert first.body.get("seed") is None is not second.body["seed"]


async def test_a_record_names_no_version_beside_an_engine_that_was_not_asked_for_it(house: House) -> None:
    found, newer = await breaking(house, 1, moved=False)
    record = house.outcome(found)
    assert (found.status, found.code) == (503, "engine_unavailable")
    assert record.engine is not None
    assert record.version == house.scene.versions[0].version != newer
