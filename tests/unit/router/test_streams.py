"""Streamed answers: what goes out when, and what never goes out."""

import asyncio
from typing import Any

import orjson
import pytest

from router.errors import EngineInterrupted
from router.testing import FakeAnswer, chunk, completion, honest, stream, usage_chunk
from tests.unit.router.driving import QUESTION, House, Response, digest_of_text, until

GOOD = '{"zeta":"z","amount":3}'
DONE = b"data: [DONE]\n\n"
Body = dict[str, Any]


async def streamed(house: House, secret: str, **changes: Any) -> Response:
    return await house.ask(secret, {"stream": True, **changes})


async def test_a_stream_is_rewritten_and_ends_properly(house: House, bank: str) -> None:
    house.engines.script = honest("hello")
    response = await streamed(house, bank)
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-tenon-version"] == house.scene.versions[0].version
    *chunks, done = response.events()
    assert done == "[DONE]"
    assert response.text() == "hello"
    for event in chunks:
        assert set(event) == {"id", "object", "created", "model", "choices"}
        assert event["model"] == "assistant"
        assert event["id"] == "chatcmpl-" + response.record.removeprefix("rec-")
        assert set(event["choices"][0]) == {"index", "delta", "logprobs", "finish_reason"}
    outcome = house.outcome(response)
    assert (outcome.answer, outcome.answer_of) == (digest_of_text("hello"), "content")
    assert (outcome.stream, outcome.completion_tokens, outcome.finish_reasons) == (True, 3, ("stop",))
    assert house.engines.asked[0].body["stream_options"] == {"include_usage": True}
    assert house.engines.answers[0].closed


async def test_usage_is_passed_on_to_those_who_asked(house: House, bank: str) -> None:
    response = await streamed(house, bank, stream_options={"include_usage": True})
    *chunks, last, done = response.events()
    assert done == "[DONE]"
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert all(event["usage"] is None for event in chunks)


async def test_several_choices_each_keep_their_index(house: House, bank: str) -> None:
    response = await streamed(house, bank, n=2, temperature=1)
    texts = ["", ""]
    for event in response.events()[:-1]:
        texts[event["choices"][0]["index"]] += event["choices"][0]["delta"].get("content", "")
    assert texts == ["fine", "fine"]


async def test_the_end_is_held_back_until_the_record_is_on_disk(house: House, bank: str) -> None:
    call = house.call(bank, {**QUESTION, "stream": True})
    seen: list[tuple[bytes, list[str]]] = []
    call.observe = lambda piece: seen.append((piece, [record.event for record in house.records()]))
    await call.done()
    *words, (end, events) = seen
    assert events == ["outcome"]
    assert b'"finish_reason":"stop"' in end
    assert end.endswith(DONE)
    assert len(words) == 4
    assert all(before == [] for _, before in words)


async def test_a_first_chunk_of_another_model_sends_nothing(house: House, bank: str) -> None:
    house.engines.script = lambda body: FakeAnswer(200, stream({**body, "model": "base"}, ["LEAK"]))
    response = await streamed(house, bank)
    assert (response.status, response.code) == (502, "engine_answer_mismatch")
    assert response.headers["content-type"] == "application/json"
    assert b"LEAK" not in response.body
    assert house.outcome(response).code == "engine_answer_mismatch"


async def test_a_later_chunk_of_another_model_ends_the_stream(house: House, bank: str) -> None:
    house.engines.script = lambda body: FakeAnswer(
        200, [chunk(body, "ok"), chunk({"model": "base"}, "LEAK"), *stream(body, ["x"])]
    )
    response = await streamed(house, bank)
    assert response.status == 200
    first, last = response.events()
    assert first["choices"][0]["delta"]["content"] == "ok"
    assert last["error"]["code"] == "engine_answer_mismatch"
    assert b"LEAK" not in response.body
    outcome = house.outcome(response)
    assert (outcome.status, outcome.answer) == (502, digest_of_text("ok"))


def error_frame(_: Body) -> bytes:
    return b'data: {"error":{"message":"EngineCore died at /secret","code":500}}\n\n'


ENDS: list[tuple[Any, str]] = [
    (lambda body: [chunk(body, "a"), error_frame(body), DONE], "engine_interrupted"),
    (lambda body: [chunk(body, "a"), DONE], "engine_interrupted"),
    (lambda body: [chunk(body, "a")], "engine_interrupted"),
    (lambda body: [chunk(body, "a"), chunk(body, "", finish="stop")[:-1]], "engine_interrupted"),
    (lambda body: [chunk(body, "a"), EngineInterrupted()], "engine_interrupted"),
    (lambda body: [chunk(body, "a"), chunk(body, "", finish="abort"), DONE], "engine_interrupted"),
    (
        lambda body: [chunk(body, "a"), chunk(body, "", finish="stop"), error_frame(body)],
        "engine_interrupted",
    ),
    (lambda body: [chunk(body, "a"), chunk(body, "", finish="stop"), chunk(body, "b")], "engine_error"),
    (lambda body: [chunk(body, "a"), chunk(body, "b", index=1), DONE], "engine_error"),
    (lambda body: [chunk(body, "a"), b"data: {broken\n\n", DONE], "engine_error"),
    (lambda body: [chunk(body, "a"), RuntimeError("secret")], "internal"),
]


@pytest.mark.parametrize(("pieces", "code"), ENDS)
async def test_an_unfinished_stream_ends_with_an_error_and_no_done(
    house: House, bank: str, pieces: Any, code: str
) -> None:
    house.engines.script = lambda body: FakeAnswer(200, pieces(body))
    response = await streamed(house, bank)
    first, last = response.events()
    assert first["choices"][0]["delta"]["content"] == "a"
    assert last["error"]["code"] == code
    assert response.complete
    for word in (DONE, b"secret", b'"finish_reason":"stop"'):
        assert word not in response.body
    outcome = house.outcome(response)
    assert (outcome.code, outcome.answer) == (code, digest_of_text("a"))
    assert house.engines.answers[0].closed


async def test_an_error_before_any_word_is_an_ordinary_error(house: House, bank: str) -> None:
    house.engines.script = lambda body: FakeAnswer(200, [error_frame(body), DONE])
    response = await streamed(house, bank)
    assert (response.status, response.code) == (502, "engine_interrupted")
    assert b"secret" not in response.body


async def test_events_cut_and_joined_by_the_network(house: House, bank: str) -> None:
    def joined(body: Body) -> FakeAnswer:
        whole = b"".join(stream(body, "héllo")).replace(b"\n\n", b"\r\n\r\n")
        return FakeAnswer(200, [whole[i : i + 7] for i in range(0, len(whole), 7)])

    house.engines.script = joined
    assert (await streamed(house, bank)).text() == "héllo"
    house.engines.script = lambda body: FakeAnswer(200, [b"".join(stream(body, "héllo"))])
    response = await streamed(house, bank)
    assert response.text() == "héllo"
    assert response.events()[-1] == "[DONE]"


async def test_a_valid_stream_under_a_schema(house: House, strict: str) -> None:
    house.engines.script = honest(GOOD)
    response = await streamed(house, strict)
    assert orjson.loads(response.text()) == {"zeta": "z", "amount": 3}
    assert response.events()[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("parts", "finish", "code"),
    [
        ([GOOD[:-1]], "length", "output_truncated"),
        ([GOOD[:-1]], "stop", "output_invalid"),
        ([GOOD, GOOD], "stop", "output_invalid"),
    ],
)
async def test_a_schema_breaking_stream_never_finishes(
    house: House, strict: str, parts: list[str], finish: str, code: str
) -> None:
    house.engines.script = lambda body: FakeAnswer(
        200,
        [*(chunk(body, part) for part in parts), chunk(body, "", finish=finish), usage_chunk(body), DONE],
    )
    response = await streamed(house, strict)
    assert response.events()[-1]["error"]["code"] == code
    assert DONE not in response.body
    assert b'"finish_reason":"' not in response.body


async def test_the_last_words_may_come_with_the_finish_reason(house: House, strict: str) -> None:
    house.engines.script = lambda body: FakeAnswer(200, [chunk(body, GOOD, finish="stop"), DONE])
    response = await streamed(house, strict)
    assert response.text() == GOOD
    assert house.outcome(response).answer == digest_of_text(GOOD)


async def test_hanging_up_stops_the_engine(house: House, bank: str) -> None:
    house.engines.script = lambda body: FakeAnswer(200, stream(body, "ab"), hold=asyncio.Event())
    call = house.call(bank, {**QUESTION, "stream": True})
    await until(lambda: bool(call.response.pieces))
    call.hang_up()
    await call.done()
    assert house.engines.answers[0].closed
    assert not call.response.complete
    last = house.records()[-1]
    assert (last.event, last.code, last.answer) == ("outcome", "client_closed", digest_of_text("ab"))


async def test_an_endless_stream_is_cut(house: House, bank: str) -> None:
    event = b": " + b"x" * (1 << 20) + b"\n\n"
    house.engines.script = lambda body: FakeAnswer(200, [chunk(body, "a"), *[event] * 40])
    response = await streamed(house, bank)
    assert response.events()[-1]["error"]["code"] == "engine_error"


def framed(body: Body, *events: bytes) -> list[bytes]:
    """``events`` as they are, then an ordinary end."""
    pieces = [piece.replace(b"@", body["model"].encode()) for piece in events]
    return [*pieces, chunk(body, "", finish="stop"), usage_chunk(body), DONE]


_HEAD = b'{"object":"chat.completion.chunk","created":1,"model":"@","choices":[{"index":0,"delta":{"content":'
_TAIL = b'},"logprobs":null,"finish_reason":null}]}'


@pytest.mark.parametrize("space", [b"\n", b" ", b"\n\n"])
async def test_what_stands_around_an_engine_s_text_is_never_passed_on(
    house: House, bank: str, space: bytes
) -> None:
    """An event of several ``data`` lines is joined with newlines, which would end ours."""

    def script(body: Body) -> FakeAnswer:
        first = b"data: " + _HEAD + b'"a"' + _TAIL + b"\n\n"
        lines = (_HEAD + space + b'"b"' + space + _TAIL).split(b"\n")
        second = b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
        return FakeAnswer(200, framed(body, first, second))

    house.engines.script = script
    response = await streamed(house, bank)
    assert response.text() == "ab"
    assert all(frame.startswith(b"data: {") for frame in response.body.split(b"\n\n")[:-2])
    assert b"\n" not in response.body.replace(b"\n\n", b"")


async def test_a_text_beside_the_text_is_no_text(house: House, bank: str) -> None:
    """Of two equal keys a reader takes the last: what was learned of the first must not speak for it."""

    def script(body: Body) -> FakeAnswer:
        events = [_HEAD + one + b',"content":"a"' + _TAIL for one in (b'"a"', b'"b"', b'"b"')]
        return FakeAnswer(200, framed(body, *(b"data: " + event + b"\n\n" for event in events)))

    house.engines.script = script
    response = await streamed(house, bank)
    assert response.text() == "aaa"
    assert house.outcome(response).answer == digest_of_text("aaa")


def whole(body: Body, text: str, finish: str) -> Body:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return completion(body, choices=[choice])


@pytest.mark.parametrize("stream_", [False, True])
@pytest.mark.parametrize(
    ("text", "finish", "code"),
    [
        ('{"a":[1, 2]}', "stop", None),
        ("{}", "stop", None),
        ("fine", "stop", "output_invalid"),
        ("[1]", "stop", "output_invalid"),
        ('{"a":1,"a":2}', "stop", "output_invalid"),
        ('{"a": [1, 2', "length", "output_truncated"),
        ('{"a":1}', "length", "output_truncated"),
    ],
)
async def test_a_json_object_is_one_or_no_answer(
    house: House, bank: str, text: str, finish: str, code: str | None, stream_: bool
) -> None:
    house.engines.script = lambda body: (
        FakeAnswer(200, [chunk(body, text), chunk(body, "", finish=finish), usage_chunk(body), DONE])
        if body.get("stream")
        else FakeAnswer(200, [orjson.dumps(whole(body, text, finish))])
    )
    response = await house.ask(bank, {"stream": stream_, "response_format": {"type": "json_object"}})
    assert house.outcome(response).code == code
    assert (b'"finish_reason":"stop"' in response.body) == (code is None)
