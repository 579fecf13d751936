"""Refusals that cost nothing: told at once, counted to the last one; a flood of them costs nobody else."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.limits import Cadence
from router.records import Record, verify_records
from router.records.unfinished import unfinished
from router.testing import FakeAnswer
from server.shipping.parquet import encoded
from tests.unit.router.driving import QUESTION, House, Response

HEAD = Cadence(head_seconds=3600, retry_seconds=0.01, receipts=1)


@pytest.fixture
async def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """It remembers a thousand receipts or so; a second lasts until it is told."""
    monkeypatch.setattr("router.groups._SECONDS", 3600)
    house = House(tmp_path, cadence=HEAD)
    house.scene.engine()
    await house.app.start()
    try:
        yield house
    finally:
        await house.app.stop()


async def flood(house: House, secret: str | None, times: int, **changes: object) -> list[Response]:
    return [await house.ask(secret, changes) for _ in range(times)]


async def groups(house: House) -> list[Record]:
    """After this second."""
    await house.next_second()
    return [record for record in house.records() if record.event == "refused"]


async def receipt(house: House, secret: str, record: str) -> int:
    return (await house.get(f"/v1/receipts/{record}", secret)).status


async def test_strangers_leave_a_line_a_second_and_evict_nobody(small: House) -> None:
    bank = small.scene.serve("bank_a")
    await small.publish()
    mine = (await small.ask(bank)).record
    refused = [*await flood(small, None, 1500), *await flood(small, "tn_nobody", 100)]
    assert {(each.status, "x-tenon-record" in each.headers) for each in refused} == {(401, False)}
    assert len({each.headers["x-request-id"] for each in refused}) == 1600
    found = await groups(small)
    assert Counter({each.code: each.count for each in found}) == {
        "missing_api_key": 1500,
        "invalid_api_key": 100,
    }
    assert {(each.tenant, each.key, each.status, each.request, each.answer) for each in found} == {
        (None, None, 401, None, None)
    }
    assert len(small.records()) == 3
    assert await receipt(small, bank, mine) == 200
    for nobodys in (refused[0].headers["x-request-id"], found[0].id):
        assert await receipt(small, bank, nobodys) == 404


async def test_a_key_leaves_a_record_and_a_line_a_second_for_each_code(small: House) -> None:
    bank, shop = small.scene.serve("bank_a"), small.scene.serve("shop_b")
    await small.publish()
    theirs = (await small.ask(shop)).record
    for second in (1, 2):
        refused = await flood(small, bank, 50, model="nothing")
        small_ones = await flood(small, bank, 20, n=0)
        for answers in (refused, small_ones):
            assert ["x-tenon-record" in each.headers for each in answers] == [True] + [False] * (
                len(answers) - 1
            )
            assert await receipt(small, bank, answers[0].record) == 200
            assert await receipt(small, bank, answers[1].headers["x-request-id"]) == 404
        assert {each.body for each in refused} == {refused[0].body}
        found = await groups(small)
        assert len(found) == 2 * second
        own = small.outcome(refused[0])
        assert {(each.tenant, each.key) for each in found} == {("bank_a", own.key)}
        told = Counter[str]()
        for each in found:
            told[each.code or ""] += each.count or 0
        assert told == {"model_not_found": 49 * second, refused_code(small_ones): 19 * second}
        assert await receipt(small, bank, found[0].id) == 404
    assert await receipt(small, shop, theirs) == 200


def refused_code(answers: list[Response]) -> str:
    (code,) = {each.code for each in answers}
    return code


async def test_each_key_has_its_own(small: House) -> None:
    first, second = small.scene.serve("bank_a"), small.scene.serve("shop_b")
    await small.publish()
    for secret in (first, second):
        assert small.outcome(await small.ask(secret, {"model": "nothing"})).code == "model_not_found"
    assert not await groups(small)


async def test_what_an_engine_was_chosen_for_has_its_own_record(small: House) -> None:
    bank = small.scene.serve("bank_a")
    await small.publish()
    small.engines.script = lambda _: FakeAnswer(500, [b"{}"])
    for answer in await flood(small, bank, 3):
        assert small.outcome(answer).code == "engine_error"
    small.engines.down.add("http://")
    durable = small.scene.serve("intent_c", intent_durable=True)
    await small.publish()
    for answer in await flood(small, durable, 2):
        assert small.outcome(answer).code == "engine_unavailable"
    assert not unfinished(small.folder)
    assert not await groups(small)


async def test_strangers_are_told_the_same_while_nothing_can_be_written(small: House) -> None:
    bank = small.scene.serve("bank_a")
    await small.publish()
    small.app.records.hold("the disk is full")
    assert [each.code for each in await flood(small, None, 2)] == ["missing_api_key"] * 2
    assert [each.code for each in await flood(small, bank, 2, model="nothing")] == [
        "record_unavailable", "model_not_found",
    ]  # fmt: skip
    assert not await groups(small)
    small.app.records.hold(None)
    assert {each.code: each.count for each in await groups(small)} == {
        "missing_api_key": 2,
        "model_not_found": 1,
    }


async def test_nothing_is_lost_at_a_stop_and_whoever_reads_records_takes_them(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.scene.engine()
    await house.app.start()
    bank = house.scene.serve("bank_a")
    await house.publish()
    await flood(house, bank, 3, model="nothing")
    await flood(house, None, 4)
    await house.call(None, QUESTION, path="/v1/embeddings").done()
    await house.app.stop()
    own, *counted = house.records()
    assert (own.event, [(each.event, each.code, each.count) for each in counted]) == (
        "outcome",
        [("refused", "model_not_found", 2), ("refused", "missing_api_key", 5)],
    )
    assert not verify_records(tmp_path, house.trusted, house.heads.envelopes)
    assert len(house.heads.envelopes) == 1
    assert encoded([record.canonical() for record in counted])


async def test_one_that_is_cut_while_it_is_told_counts_once(small: House) -> None:
    await small.publish()
    telling, scope = (
        asyncio.Event(),
        {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": []},
    )

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(_: object) -> None:
        telling.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(small.app(scope, receive, send))
    await telling.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(each.code, each.count) for each in await groups(small)] == [("missing_api_key", 1)]
