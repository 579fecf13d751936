"""What clients' schemas may cost, whom, and when."""

import asyncio
import gc
import itertools
import threading
from typing import Any

import orjson
import pytest

from registry.models import ClientSchema as Clients
from registry.models import Policy, Quota, Tenant
from registry.pattern_work import BYTES
from registry.schemas.validator import Validator
from router import schemas as subject
from router.errors import InvalidRequest, RouterError, SchemasTooLarge
from router.schemas import MOST_OF_A_TENANT, ClientSchema, Finding, Schemas, look
from tests.unit.router.driving import QUESTION, House, until


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads in which a schema was compiled."""
    seen: list[int] = []
    real = Validator

    def compiling(schema: Any) -> Any:
        seen.append(threading.get_ident())
        return real(schema)

    monkeypatch.setattr("router.schemas.Validator", compiling)
    return seen


def offering(schema: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}


def patterned(pattern: str, count: int = 1) -> dict[str, Any]:
    properties = {f"p{at}": {"type": "string", "pattern": f"{pattern}{at}"} for at in range(count)}
    return {"type": "object", "properties": properties}


def serve(house: House, **parts: Any) -> str:
    version = house.scene.version("bank_a")
    house.scene.attest(version)
    policy = Policy(tenant="bank_a", name="free", **{"tools": ("*",)} | parts)
    house.scene.policies[policy.identity()] = policy
    house.scene.route("bank_a", policy.identity())
    return house.scene.key("bank_a")


async def test_nobody_s_schema_is_looked_at_before_the_request_is_admitted(
    house: House, looked: list[int]
) -> None:
    house.scene.tenants["bank_a"] = Tenant(id="bank_a", display_name="a", quota=Quota(requests_per_minute=1))
    secret = serve(house)
    await house.publish()
    tool = offering(patterned("x"))
    assert (await house.ask(secret, {"model": "nobody-has-it", **tool})).status == 404
    assert not looked
    assert (await house.ask(secret, tool)).status == 200
    assert looked == [looked[0]] != [threading.get_ident()]
    assert (await house.ask(secret, offering(patterned("y")))).status == 429
    assert len(looked) == 1


async def test_a_policy_that_offers_no_tools_looks_at_none(house: House, looked: list[int]) -> None:
    secret = serve(house, tools=("other",))
    await house.publish()
    assert (await house.ask(secret, offering(patterned("x")))).code == "tool_not_allowed"
    assert not looked


@pytest.mark.parametrize(
    ("pattern", "count"), [(r"\w{100}", 1), (r"\w{40}", 3), (r"(?:\d\w){64}", 2), ("a", 300)]
)
async def test_patterns_that_take_too_long_are_refused_uncompiled(
    house: House, looked: list[int], pattern: str, count: int
) -> None:
    secret = serve(house, client_schema=Clients.NARROW)
    await house.publish()
    refused = await house.ask(secret, offering(patterned(pattern, count)))
    assert (refused.status, refused.json()["error"]["param"]) == (400, "tools[0].function.parameters")
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": patterned(pattern, count)}}
    refused = await house.ask(secret, {"response_format": form})
    assert (refused.status, refused.code) == (400, "unsupported_parameter")
    assert not looked
    assert not house.engines.asked


async def test_a_client_s_narrower_schema_is_read_off_the_loop(house: House, looked: list[int]) -> None:
    secret = serve(house, client_schema=Clients.NARROW)
    await house.publish()
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": "no"}}}
    for _ in range(2):
        assert (await house.ask(secret, {"response_format": form})).code == "output_invalid"
    assert len(looked) == 1
    assert looked != [threading.get_ident()]


def schema_of(number: int, weight: int = 1000) -> ClientSchema:
    def find(spelled: bytes) -> Finding:
        return Finding(lambda value: value == number, "", weight)

    return ClientSchema(b"%d" % number, look=find, refusal=InvalidRequest)


async def test_a_schema_is_looked_at_once_per_tenant_and_scope() -> None:
    known, asked = Schemas(), list[bytes]()

    def find(spelled: bytes) -> Finding:
        asked.append(spelled)
        return Finding(None, "no", 1)

    for tenant, scope in itertools.product(("bank_a", "bank_b"), ("", "one")):
        for _ in range(2):
            with pytest.raises(InvalidRequest, match="no"):
                await known.read(tenant, [ClientSchema(b"x", look=find, refusal=InvalidRequest, scope=scope)])
    assert len(asked) == 4


async def test_what_a_tenant_keeps_is_bounded_in_bytes() -> None:
    known = Schemas()
    other = schema_of(0, 500)
    await known.read("bank_b", [other])
    for number in range(100):
        await known.read("bank_a", [schema_of(number, MOST_OF_A_TENANT // 10)])
    gc.collect()
    assert MOST_OF_A_TENANT * 0.8 < known.alive("bank_a") <= MOST_OF_A_TENANT
    assert known.kept == known.alive("bank_a") + 500


async def test_what_requests_under_way_hold_counts_too() -> None:
    known = Schemas()
    held = [schema_of(number, MOST_OF_A_TENANT // 3) for number in range(3)]
    await known.read("bank_a", held)
    with pytest.raises(SchemasTooLarge) as refused:
        await known.read("bank_a", [schema_of(9, MOST_OF_A_TENANT // 3)])
    assert refused.value.status == 429
    await known.read("bank_b", [schema_of(9, MOST_OF_A_TENANT // 3)])
    held.clear()
    await known.read("bank_a", [schema_of(9, MOST_OF_A_TENANT // 3)])


async def test_what_all_tenants_keep_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MOST_KEPT", 2500)
    known = Schemas()
    for number in range(5):
        await known.read(f"bank_{number}", [schema_of(number)])
    assert known.kept == 2000


async def test_a_tenant_with_many_schemas_does_not_stand_before_the_others() -> None:
    known, order, gate = Schemas(), list[str](), threading.Event()

    def looking(name: str) -> ClientSchema:
        def find(spelled: bytes) -> Finding:
            gate.wait(10)
            order.append(name)
            return Finding(bool, "", 1)

        return ClientSchema(name.encode(), look=find, refusal=InvalidRequest)

    async def reading(tenant: str, name: str) -> None:
        await known.read(tenant, [looking(name)])

    tasks = [asyncio.create_task(reading("bank_a", f"a{number}")) for number in range(5)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(reading("bank_b", "b")))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*tasks)
    assert order.index("b") == 1


async def test_after_a_slow_schema_the_next_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        rests.append(seconds)
        await real(0)

    monkeypatch.setattr("router.schemas.asyncio.sleep", sleep)
    times = iter([0.0, 0.02, 1.0, 1.001, 2.0, 9.0])
    known = Schemas(lambda: next(times))
    for number in range(3):
        await known.read("bank_a", [schema_of(number)])
    assert rests == [pytest.approx(0.06), 0.5]


def test_an_unread_schema_judges_nothing() -> None:
    with pytest.raises(RuntimeError, match="nobody has read"):
        schema_of(1)(1)


def test_what_is_found_out_weighs_what_it_takes() -> None:
    plain = look(orjson.dumps({"type": "object"}))
    heavy = look(orjson.dumps(patterned(r"\w{64}")))
    assert plain.accepts is not None
    assert heavy.accepts is not None
    assert plain.weight < 5_000
    assert heavy.weight > 64 * 250 * BYTES
    assert isinstance(schema_of(1).refusal("x"), RouterError)
    assert look(b'{"type":"sting"}').accepts is None


async def test_rules_that_change_while_a_schema_is_read_hold(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = serve(house)
    await house.publish()
    gate, begun = threading.Event(), threading.Event()
    real = Validator

    def compiling(schema: Any) -> Any:
        begun.set()
        gate.wait(10)
        return real(schema)

    monkeypatch.setattr("router.schemas.Validator", compiling)
    call = house.call(secret, {**QUESTION, **offering(patterned("z"))})
    await until(begun.is_set)
    house.scene.keys.clear()
    await house.publish()
    gate.set()
    assert (await call.done()).status == 401
    assert not house.engines.asked
