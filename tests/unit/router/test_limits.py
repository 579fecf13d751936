"""Limits as a client meets them: statuses, headers, and what is counted however a request ends."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from registry.models import OnInvalid, Quota
from router.admission import LARGE, Patience
from router.errors import EngineInterrupted
from router.testing import FakeAnswer, chunk, completion, stream, usage_chunk
from tests.unit.router.driving import QUESTION, House, until

LIMITED = {"requests_per_minute": 3}


async def limited(house: House, **limits: Any) -> str:
    secret = house.scene.serve("bank_a")
    tenant = house.scene.tenants["bank_a"]
    house.scene.tenants["bank_a"] = tenant.model_copy(update={"quota": Quota(**limits)})
    await house.publish()
    return secret


def left(house: House) -> int:
    """Tokens of bank_a's minute."""
    minute = house.app.admission.accounts["tenant/bank_a"].tokens
    assert minute is not None
    return minute.limit - minute.used


async def test_a_burst_beyond_the_limit_is_told_when_to_come_back(house: House) -> None:
    secret = await limited(house, **LIMITED)
    answers = await asyncio.gather(*(house.ask(secret) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 429, 429]
    for answer in answers:
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        if answer.status == 429:
            assert answer.code == "rate_limit_exceeded"
            assert 1 <= int(answer.headers["retry-after"]) <= 65
            assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    (refused,) = [each for each in answers if each.status == 429 and "x-tenon-record" in each.headers]
    assert house.outcome(refused).code == "rate_limit_exceeded"
    assert len(house.engines.asked) == 3
    house.now += 66
    assert (await house.ask(secret)).status == 200


async def test_a_large_body_is_counted_before_it_is_read(house: House) -> None:
    secret = await limited(house, requests_per_minute=2)
    large = [{"role": "user", "content": "x" * LARGE}]
    assert (await house.ask(secret, {"messages": large})).status == 200
    assert (await house.ask(secret, {"messages": [{}, *large]})).status == 400
    for messages in (large, [{}, *large]):
        refused = await house.ask(secret, {"messages": messages})
        assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert house.outcome(refused).model is None  # nothing was read
        await house.next_second()
    assert (await house.ask(secret, {"messages": [{}]})).status == 400  # small ones cost nothing
    house.now += 66
    assert (await house.ask(secret, {"messages": large})).status == 200
    assert len(house.engines.asked) == 2


async def test_a_large_body_counts_once_and_its_tokens_as_ever(house: House) -> None:
    secret = await limited(house, requests_per_minute=3, tokens_per_minute=100_000, concurrent_requests=1)
    large = {"messages": [{"role": "user", "content": "x" * LARGE}], "max_tokens": 200_000}
    refused = await house.ask(secret, large)
    assert (refused.status, refused.code) == (400, "sampling_out_of_bounds")
    assert left(house) == 100_000
    answer = await house.ask(secret, {**large, "max_tokens": 10})
    assert answer.status == 200
    assert answer.headers["x-ratelimit-remaining-requests"] == "1"
    usage = answer.json()["usage"]
    assert left(house) == 100_000 - usage["total_tokens"]
    assert house.app.admission.accounts["tenant/bank_a"].running == 0


async def test_a_large_body_that_reaches_no_engine_is_still_counted(house: House) -> None:
    secret = await limited(house, requests_per_minute=1)
    house.engines.down.add("http://")
    large = {"messages": [{"role": "user", "content": "x" * LARGE}]}
    assert (await house.ask(secret)).status == 503
    assert [(await house.ask(secret, large)).status for _ in range(2)] == [503, 429]


async def test_who_has_no_tokens_left_is_not_read(house: House) -> None:
    secret = await limited(house, tokens_per_minute=LARGE)
    refused = await house.ask(secret, {"messages": [{"role": "user", "content": "x" * LARGE}], "n": "1"})
    assert refused.status == 400  # it fits into an empty minute
    assert (await house.ask(secret)).status == 200
    refused = await house.ask(secret, {"messages": [{"role": "user", "content": "x" * LARGE}], "n": "1"})
    assert refused.code == "rate_limit_exceeded"


async def test_others_are_not_limited_by_it(house: House) -> None:
    secret = await limited(house, requests_per_minute=0)
    other = house.scene.serve("shop_b")
    await house.publish()
    assert (await house.ask(secret)).status == 429
    answer = await house.ask(other)
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


async def test_a_whole_answer_counts_what_its_engine_counted(house: House) -> None:
    secret = await limited(house, tokens_per_minute=1000)
    answer = await house.ask(secret)
    assert left(house) == 990
    assert answer.headers["x-ratelimit-remaining-tokens"] == "990"


async def test_a_stream_holds_its_reservation_until_it_ends(house: House) -> None:
    secret = await limited(house, tokens_per_minute=1000)
    hold = asyncio.Event()
    house.engines.script = lambda body: FakeAnswer(200, stream(body, "fine"), hold=hold)
    call = house.call(secret, QUESTION | {"stream": True, "max_tokens": 200})
    await until(lambda: call.response.status == 200)
    assert left(house) < 800 - len(orjson.dumps(QUESTION))
    refused = await house.ask(secret, {"max_tokens": 200, "n": 4, "temperature": 1})
    assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
    hold.set()
    assert (await call.done()).complete
    assert left(house) == 990


async def test_a_client_that_hangs_up_pays_for_what_it_got(house: House) -> None:
    secret = await limited(house, tokens_per_minute=1000)
    hold = asyncio.Event()
    house.engines.script = lambda body: FakeAnswer(
        200, [chunk(body, "twelve bytes"), usage_chunk(body)], hold=hold
    )
    body = orjson.dumps(QUESTION | {"stream": True, "max_tokens": 200})
    call = house.call(secret, body)
    await until(lambda: bool(call.response.pieces))
    call.hang_up()
    await call.done()
    assert left(house) == 1000 - (64 + len(body)) - 12


def thought(body: dict[str, Any]) -> bytes:
    """Of a reasoning parser: a token for the engine, nothing for the client."""
    return chunk(body, None).replace(b'"delta":{}', b'"delta":{"reasoning_content":"hm"}')


@pytest.mark.parametrize("cut", ["by the client", "by the engine"])
async def test_what_a_model_thought_is_paid_for_though_nobody_got_it(house: House, cut: str) -> None:
    secret = await limited(house, tokens_per_minute=1000)
    hold = asyncio.Event()

    def script(body: dict[str, Any]) -> FakeAnswer:
        thoughts = [thought(body) for _ in range(50)]
        return FakeAnswer(200, [chunk(body, "two"), *thoughts, EngineInterrupted()], hold=hold)

    house.engines.script = script
    body = orjson.dumps(QUESTION | {"stream": True, "max_tokens": 200})
    call = house.call(secret, body)
    await until(lambda: bool(house.engines.answers) and house.engines.answers[0]._next == 51)
    hold.set() if cut == "by the engine" else call.hang_up()
    await call.done()
    assert left(house) == 1000 - (64 + len(body)) - 51


@pytest.mark.parametrize("status", [400, 500])
async def test_an_engine_that_refuses_costs_nothing_and_one_that_fails_all(house: House, status: int) -> None:
    secret = await limited(house, tokens_per_minute=1000)
    house.engines.script = lambda body: FakeAnswer(status, [b"{}"])
    body = orjson.dumps(QUESTION | {"max_tokens": 200})
    await house.call(secret, body).done()
    assert left(house) == (1000 if status == 400 else 1000 - (64 + len(body)) - 200)


async def test_what_reached_no_engine_costs_nothing_at_all(house: House) -> None:
    secret = await limited(house, tokens_per_minute=1000, requests_per_minute=1)
    house.engines.down.add("http://engine-0")
    for _ in range(2):
        assert (await house.ask(secret)).status == 503
    house.engines.down.clear()
    assert left(house) == 1000
    assert (await house.ask(secret)).status == 200


async def test_a_request_that_can_never_pass_is_told_so(house: House) -> None:
    secret = await limited(house, tokens_per_minute=100)
    answer = await house.ask(secret, {"max_tokens": 60, "n": 2, "temperature": 1})
    assert (answer.status, answer.code) == (400, "request_over_limit")
    assert "retry-after" not in answer.headers


async def retrying(house: House, **policy: Any) -> str:
    secret = house.scene.serve("bank_a", on_invalid=OnInvalid.RETRY, **policy)
    tenant = house.scene.tenants["bank_a"]
    house.scene.tenants["bank_a"] = tenant.model_copy(update={"quota": Quota(tokens_per_minute=100_000)})
    await house.publish()
    return secret


def counted(house: House) -> int:
    return 100_000 - left(house)


async def test_a_discarded_stream_counts_by_its_bytes(house: House) -> None:
    secret = await retrying(house, schema={"type": "array"})
    house.engines.script = lambda body: FakeAnswer(
        200, stream(body, ["no ", "list ü"] if len(house.engines.asked) == 1 else "[1]")
    )
    found = await house.ask(secret, {"stream": True})
    assert (found.status, found.text()) == (200, "[1]")
    assert counted(house) == 2 * 7 + 3 + len("no list ü".encode())
    assert house.outcome(found).completion_tokens == 3  # records hold what engines counted


async def test_a_discarded_stream_counts_no_more_than_it_could_have_been(house: House) -> None:
    secret = await retrying(house, schema={"type": "array"})
    house.engines.script = lambda body: FakeAnswer(
        200, stream(body, ["no list"] if len(house.engines.asked) == 1 else "[1]")
    )
    found = await house.ask(secret, {"stream": True, "max_tokens": 4})
    assert (found.status, counted(house)) == (200, 2 * 7 + 3 + 4)


async def test_two_bad_streams_count_by_their_bytes(house: House) -> None:
    secret = await retrying(house, schema={"type": "array"})
    house.engines.script = lambda body: FakeAnswer(200, stream(body, ["no ", "list"]))
    body = orjson.dumps(QUESTION | {"stream": True})
    assert (await house.call(secret, body).done()).code == "output_invalid"
    assert counted(house) == 64 + 2 * len(body) + 2 * len("no list")


async def test_a_discarded_tool_call_counts_what_its_engine_counted(house: House) -> None:
    secret = await retrying(house, tools=("*",))
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    function = {"name": "g", "arguments": "{}"}

    def script(body: dict[str, Any]) -> FakeAnswer:
        said = completion(body)
        if len(house.engines.asked) == 1:
            said["choices"][0]["message"]["tool_calls"] = [
                {"id": "x", "type": "function", "function": function}
            ]
        return FakeAnswer(200, [orjson.dumps(said)])

    house.engines.script = script
    found = await house.ask(secret, {"tools": [tool]})
    assert (found.status, len(house.engines.asked)) == (200, 2)
    assert counted(house) == 20
    assert house.outcome(found).prompt_tokens == 14


async def test_what_is_embedded_reserves_no_tokens_of_an_answer(house: House) -> None:
    secret = await limited(house, tokens_per_minute=4000)

    def script(body: dict[str, Any]) -> FakeAnswer:
        data = [{"object": "embedding", "index": i, "embedding": [0.1]} for i in range(len(body["input"]))]
        said = {"object": "list", "model": body["model"], "data": data, "usage": {"prompt_tokens": 5}}
        return FakeAnswer(200, [orjson.dumps(said)])

    house.engines.script = script
    call = house.call(secret, {"model": "assistant", "input": ["a"] * 400}, path="/v1/embeddings")
    assert (await call.done()).status == 200
    assert left(house) == 3995


async def test_the_queue_lets_in_who_waits_and_sends_away_who_waits_too_long(tmp_path: Path) -> None:
    house = House(tmp_path, patience=Patience(running=1, waiting=5, aging=0.05, longest=0.1))
    house.scene.engine()
    await house.app.start()
    try:
        secret, other = house.scene.serve("bank_a"), house.scene.serve("shop_b")
        await house.publish()
        hold = asyncio.Event()
        house.engines.script = lambda body: FakeAnswer(
            200, [b"", *stream(body, "fine")] if body.get("stream") else [b"{}"], hold=hold
        )
        first = house.call(secret, QUESTION | {"stream": True})
        await until(lambda: len(house.engines.asked) == 1)
        answer = await house.ask(other)
        assert (answer.status, answer.code) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1"
        second = house.call(other, QUESTION | {"stream": True})
        await until(lambda: house.app.queue.waiting == 1)
        third = house.call(other, QUESTION | {"stream": True})
        await until(lambda: house.app.queue.waiting == 2)
        third.hang_up()
        await third.done()
        assert house.app.queue.waiting == 1
        hold.set()
        assert [(await call.done()).status for call in (first, second)] == [200, 200]
        assert len(house.engines.asked) == 2
        assert all(lane.running == 0 for lane in house.app.queue._lanes.values())
    finally:
        await house.app.stop()
