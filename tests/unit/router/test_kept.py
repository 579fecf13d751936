"""What a router leaves on disk of questions and answers, under each retention a policy may name."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from registry.digests import Digest
from registry.models import OnInvalid, Quota, Retention
from router.records import content_digest
from router.retention import TenantKeys
from router.retention.kept import keyed_digest
from router.retention.sealed import Text, unseal
from router.retention.texts import find
from router.testing import FakeAnswer, completion, honest, stream
from tests.unit.router.driving import QUESTION, House, Response, until

SECRET_KEY = b"the retention key of this router"
ASKED, ANSWERED = "my PIN is 1234", "your PIN is 1234"
BODY = orjson.dumps({**QUESTION, "messages": [{"role": "user", "content": ASKED}]})
STREAM = orjson.dumps({**orjson.loads(BODY), "stream": True})
SCHEMA = {"type": "array"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    found = House(tmp_path, retention_key=SECRET_KEY)
    found.engines.script = honest(ANSWERED)
    await found.app.start()
    try:
        yield found
    finally:
        await found.app.stop()


async def opened(house: House, **policy: Any) -> str:
    house.scene.engine()
    secret = house.scene.serve("bank_a", **policy)
    await house.publish()
    return secret


async def answer(house: House, secret: str, body: bytes) -> Response:
    return await house.call(secret, body).done()


def on_disk(folder: Path) -> bytes:
    return b"\n".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def keys(house: House) -> TenantKeys:
    folder = house.folder / "router-0"
    return TenantKeys(folder, writer="router-0", master=SECRET_KEY, entropy=bytes)


@pytest.mark.parametrize("mode", list(Retention))
@pytest.mark.parametrize("policy", [{}, {"schema": {"type": "object"}}], ids=["answered", "refused"])
async def test_no_mode_writes_a_word_in_the_clear(
    house: House, mode: Retention, policy: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    secret = await opened(house, retention=mode, **policy)
    for body in (BODY, STREAM, BODY[:-1] + b',"nonsense":"' + ASKED.encode() + b'"}', BODY[:-1]):
        await answer(house, secret, body)
    await house.app.stop()
    written = on_disk(house.folder)
    assert len(house.records()) == 4
    # Six letters and more: "1234" and "PIN" are found in random hexadecimal and base64, too.
    for word in (ASKED, ANSWERED, "PIN is", "is 1234", "nonsense"):
        assert word.encode() not in written
        assert word not in caplog.text
    plain = [Digest.of(BODY), Digest.of(STREAM), content_digest([ANSWERED])]
    if policy:
        plain = plain[:2]
    for digest in plain:  # of a short text, as good as the text
        assert (digest.encode() in written) == (mode is Retention.DIGESTS)


async def test_nothing_is_kept_where_nothing_shall_be(house: House) -> None:
    secret = await opened(house, retention=Retention.NONE)
    for body in (BODY, STREAM):
        record = house.outcome(await answer(house, secret, body))
        assert (record.request, record.answer, record.answer_of) == (None, None, None)
        assert (record.status, record.retention) == (200, "none")
    assert not keys(house).path("bank_a").exists()


async def test_keyed_digests_are_what_the_key_s_holder_computes(house: House) -> None:
    secret = await opened(house, retention=Retention.HMAC)
    whole = await answer(house, secret, BODY)
    streamed = await answer(house, secret, STREAM)
    key = keys(house).existing("bank_a")
    assert key is not None
    record = house.outcome(whole)
    assert record.retention == "hmac"
    assert record.request == keyed_digest(key.mac, "question", BODY)
    assert (record.answer, record.answer_of) == (keyed_digest(key.mac, "answer", whole.body), "body")
    record = house.outcome(streamed)
    said = orjson.dumps([ANSWERED])
    assert (record.answer, record.answer_of) == (keyed_digest(key.mac, "answer", said), "content")
    assert not (house.folder / "router-0" / "text").exists()


async def test_full_texts_open_with_the_tenant_s_key_until_it_is_forgotten(house: House) -> None:
    secret = await opened(house, retention=Retention.FULL)
    whole, streamed = await answer(house, secret, BODY), await answer(house, secret, STREAM)
    folder, key = house.folder / "router-0", keys(house).existing("bank_a")
    assert key is not None
    (found,) = find(folder, whole.record)
    assert unseal(found, key) == Text(BODY, whole.body)
    (found,) = find(folder, streamed.record)
    assert unseal(found, key) == Text(STREAM, orjson.dumps([ANSWERED]))
    assert house.outcome(whole).answer == keyed_digest(key.mac, "answer", whole.body)
    keys(house).forget("bank_a")
    assert keys(house).existing("bank_a") is None


async def test_the_text_is_on_disk_before_the_client_has_the_end(house: House) -> None:
    secret = await opened(house, retention=Retention.FULL)
    seen: list[bool] = []
    call = house.call(secret, BODY)
    call.observe = lambda _: seen.append((house.folder / "router-0" / "text" / "000000.jsonl").exists())
    await call.done()
    assert seen[-1]


async def test_a_text_that_cannot_be_written_takes_its_answer_with_it(house: House) -> None:
    secret = await opened(house, retention=Retention.FULL)
    (house.folder / "router-0").mkdir(exist_ok=True)
    (house.folder / "router-0" / "text").write_bytes(b"a file where the folder should be")
    refused = await answer(house, secret, BODY)
    assert (refused.status, refused.code) == (503, "record_unavailable")
    assert ANSWERED.encode() not in refused.body
    record = house.outcome(refused)
    assert (record.status, record.code) == (503, "record_unavailable")


async def test_a_cut_stream_keeps_what_the_client_had(house: House) -> None:
    secret = await opened(house, retention=Retention.FULL)

    def dying(body: dict[str, Any]) -> FakeAnswer:
        return FakeAnswer(200, stream(body, ANSWERED)[:4])

    house.engines.script = dying
    cut = await answer(house, secret, STREAM)
    key = keys(house).existing("bank_a")
    assert key is not None
    (found,) = find(house.folder / "router-0", cut.record)
    assert unseal(found, key) == Text(STREAM, orjson.dumps([ANSWERED[:4]]))


async def test_no_text_is_kept_of_who_is_sent_away_at_the_door(house: House) -> None:
    secret = await opened(house, retention=Retention.FULL)
    tenant = house.scene.tenants["bank_a"]
    house.scene.tenants["bank_a"] = tenant.model_copy(update={"quota": Quota(requests_per_minute=1)})
    await house.publish()
    answered = await answer(house, secret, BODY)
    unbounded = await answer(house, secret, BODY[:-1] + b',"max_tokens":100000}')
    refused = await answer(house, secret, BODY)
    assert [found.status for found in (answered, unbounded, refused)] == [200, 400, 429]
    key = keys(house).existing("bank_a")
    assert key is not None
    folder = house.folder / "router-0"
    for found in (unbounded, refused):
        assert list(find(folder, found.record)) == []
        assert house.outcome(found).retention == "full"
    # Keyed, it tells nothing, and the tenant can show what was refused.
    assert house.outcome(refused).request == keyed_digest(key.mac, "question", BODY)
    assert len(list(find(folder, answered.record))) == 1


@pytest.mark.parametrize("hangs_up", [False, True])
async def test_a_broken_stream_says_that_something_was_sent(house: House, hangs_up: bool) -> None:
    """Whoever asks which answers a bug touched must hear of it, though nothing of it is kept."""
    secret = await opened(house, retention=Retention.NONE)
    hold = asyncio.Event()
    house.engines.script = lambda body: FakeAnswer(200, stream(body, "fine")[:3], hold=hold)
    call = house.call(secret, STREAM)
    await until(lambda: bool(call.response.pieces))
    if hangs_up:
        call.hang_up()
    else:
        hold.set()
    record = house.outcome(await call.done())
    assert (record.answer, record.answer_of, record.retention) == (None, "content", "none")
    assert record.status == (499 if hangs_up else 502)


async def test_what_reached_nobody_says_so(house: House) -> None:
    secret = await opened(house, retention=Retention.NONE)
    house.engines.script = lambda body: FakeAnswer(500, [b"{}"])
    for body in (BODY, STREAM):
        record = house.outcome(await answer(house, secret, body))
        assert (record.answer, record.answer_of, record.status) == (None, None, 502)


async def test_without_a_retention_key_such_a_policy_answers_nothing(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.app.start()
    try:
        for mode, status in ((Retention.HMAC, 503), (Retention.FULL, 503), (Retention.NONE, 200)):
            house.scene = type(house.scene)(size=house.scene.size)
            secret = await opened(house, retention=mode)
            await house.next_second()
            found = await answer(house, secret, BODY)
            assert found.status == status
            if status == 503:
                assert found.code == "retention_unavailable"
                assert house.outcome(found).request is None
        assert len(house.engines.asked) == 1
    finally:
        await house.app.stop()


async def test_a_tenant_with_plain_policies_keeps_digests_of_refused_requests_too(house: House) -> None:
    secret = await opened(house)
    refused = await answer(house, secret, BODY[:-1])
    assert house.outcome(refused).request == Digest.of(BODY[:-1])
    # One policy that says otherwise, and which it would have been nobody knows.
    house.scene.route(
        "bank_a", house.scene.policy("bank_a", retention=Retention.NONE, name="none"), model="b"
    )
    await house.publish()
    await house.next_second()
    record = house.outcome(await answer(house, secret, BODY[:-1]))
    assert (record.request, record.retention) == (None, "none")


def turns(*contents: str, reason: str = "stop") -> Any:
    """A script that answers with each content in its turn, and with the last from then on."""
    waiting = list(contents)

    def script(body: dict[str, Any]) -> FakeAnswer:
        content = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if body.get("stream"):
            return FakeAnswer(200, stream(body, content))
        said = completion(body, content)
        said["choices"][0]["finish_reason"] = reason if content == contents[0] else "stop"
        return FakeAnswer(200, [orjson.dumps(said)])

    return script


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
async def test_an_invalid_answer_is_asked_for_once_more(house: House, body: bytes) -> None:
    secret = await opened(house, schema=SCHEMA, on_invalid=OnInvalid.RETRY)
    house.engines.script = turns("no list", "[1]")
    found = await answer(house, secret, body)
    assert found.status == 200
    assert b"no list" not in found.body
    text = found.text() if body is STREAM else found.json()["choices"][0]["message"]["content"]
    assert text == "[1]"
    first, second = house.engines.asked
    assert second.body["temperature"] > first.body["temperature"]
    if body is BODY:  # a stream is cut before it tells its usage
        assert house.outcome(found).prompt_tokens == 14


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
async def test_a_second_invalid_answer_is_an_error_with_its_own_status(house: House, body: bytes) -> None:
    secret = await opened(house, schema=SCHEMA, on_invalid=OnInvalid.RETRY)
    house.engines.script = turns("no list", "none either", "[1]")
    found = await answer(house, secret, body)
    assert (found.status, found.code) == (502, "output_invalid")
    assert len(house.engines.asked) == 2


async def test_a_policy_that_says_error_asks_once(house: House) -> None:
    secret = await opened(house, schema=SCHEMA)
    house.engines.script = turns("no list", "[1]")
    assert (await answer(house, secret, BODY)).code == "output_invalid"
    assert len(house.engines.asked) == 1


async def test_a_refusal_and_a_cut_answer_have_codes_of_their_own(house: House) -> None:
    secret = await opened(house, schema=SCHEMA)
    house.engines.script = turns("[1]", reason="content_filter")
    assert (await answer(house, secret, BODY)).code == "output_refused"
    house.engines.script = turns("[1]", reason="length")
    assert (await answer(house, secret, BODY)).code == "output_truncated"

    def declined(body: dict[str, Any]) -> FakeAnswer:
        said = completion(body, "[1]")
        said["choices"][0]["message"] |= {"refusal": "I cannot", "content": None}
        return FakeAnswer(200, [orjson.dumps(said)])

    house.engines.script = declined
    found = await answer(house, secret, BODY)
    assert (found.status, found.code) == (422, "output_refused")
    assert b"I cannot" not in found.body
