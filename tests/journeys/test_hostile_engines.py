"""Engines that lie, die, stall and babble: the right error, one record, no word of theirs, nothing held."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from router.limits import Limits
from router.records import content_digest
from router.testing import chunk, completion, stream
from router.upstream.connection import _STALE_SECONDS
from tests.support.rough import LIMIT, Rough, Said, leaks, responses, rough
from tests.unit.router.driving import until
from tests.unit.router.raw_engine import HEAD, Reply, pieces, raw, whole

WORDS = ("okapi", "lora-", "CUDA", "Traceback", "/models", "engine-0.internal")
"""What these engines say and no client may read."""
ERROR = {"error": {"message": "okapi: CUDA out of memory at /models/base on engine-0.internal", "code": 500}}
Answer = Callable[[dict[str, Any]], dict[str, Any]]


def telling(make: Answer) -> Reply:
    async def reply(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(whole(orjson.dumps(make(body))))

    return reply


def streaming(
    make: Callable[[dict[str, Any]], list[bytes]], *, end: bool = True, close: bool = False
) -> Reply:
    async def reply(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(pieces(*make(body), end=end))
        await writer.drain()
        if close:
            writer.close()

    return reply


def status(code: int, body: bytes = orjson.dumps(ERROR), more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d okapi\r\n%bContent-Length: %d\r\n\r\n%b" % (code, more, len(body), body)


def choice(**changes: Any) -> dict[str, Any]:
    usual = {"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}
    return usual | changes


TOKEN = {"token": "okapi", "logprob": -1.0, "bytes": None}
SEVEN = TOKEN | {"top_logprobs": 7}
WHOLE: dict[str, tuple[Reply, int, str]] = {
    "another model": (
        telling(lambda b: completion(b, model="lora-" + "0" * 64)), 502, "engine_answer_mismatch",
    ),
    "the base": (telling(lambda b: completion(b, model="base")), 502, "engine_answer_mismatch"),
    "no model": (telling(lambda b: completion(b, model=None)), 502, "engine_answer_mismatch"),
    "no finish reason": (
        telling(lambda b: completion(b, choices=[choice(finish_reason=None)])), 502, "engine_interrupted",
    ),
    "no choice": (telling(lambda b: completion(b, choices=[])), 502, "engine_error"),
    "two choices": (
        telling(lambda b: completion(b, choices=[choice(), choice(index=1)])), 502, "engine_error",
    ),
    "an index twice": (telling(lambda b: completion(b, choices=[choice(), choice()])), 502, "engine_error"),
    "choices as text": (telling(lambda b: completion(b, choices="okapi")), 502, "engine_error"),
    "content as number": (
        telling(lambda b: completion(b, choices=[choice(message={"content": 7})])), 502, "engine_error",
    ),
    "logprobs as text": (
        telling(lambda b: completion(b, choices=[choice(logprobs="okapi")])), 502, "engine_error",
    ),
    "top_logprobs as number": (
        telling(lambda b: completion(b, choices=[choice(logprobs={"content": [SEVEN]})])),
        502, "engine_error",
    ),
    "another object": (telling(lambda b: completion(b, object="okapi")), 502, "engine_error"),
    "an error as 200": (telling(lambda _: ERROR), 502, "engine_error"),
    "half of its JSON": (raw(whole(b'{"okapi": ')), 502, "engine_error"),
    "no JSON": (raw(whole(b"<html>okapi</html>")), 502, "engine_error"),
    "nothing": (raw(whole(b"")), 502, "engine_error"),
    "zeros": (raw(whole(bytes(1000))), 502, "engine_error"),
    "deep nesting": (raw(whole(b"[" * 100_000)), 502, "engine_error"),
    "500": (raw(status(500)), 502, "engine_error"),
    "503": (raw(status(503)), 502, "engine_error"),
    "401": (raw(status(401)), 502, "engine_error"),
    "404": (raw(status(404)), 502, "engine_error"),
    "429": (raw(status(429)), 502, "engine_error"),
    "400": (raw(status(400)), 400, "request_rejected_by_engine"),
    "a redirect": (raw(status(307, more=b"Location: http://127.0.0.1:1/okapi\r\n")), 502, "engine_error"),
    "204": (raw(b"HTTP/1.1 204 okapi\r\n\r\n"), 502, "engine_error"),
    "an upgrade": (
        raw(b"HTTP/1.1 101 okapi\r\nUpgrade: okapi\r\nConnection: Upgrade\r\n\r\n"), 502, "engine_error",
    ),
    "too much": (
        raw(HEAD + b"Content-Length: %d\r\n\r\n" % (LIMIT + 1) + b" " * (LIMIT + 1)), 502, "engine_error",
    ),
    "huge headers": (
        raw(b"HTTP/1.1 200 OK\r\n" + b"X-Okapi: okapi\r\n" * 10_000 + b"\r\n"), 502, "engine_error",
    ),
    "endless interim answers": (raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), 502, "engine_error"),
    "a lie about its length": (
        raw(HEAD + b"Content-Length: 9999\r\n\r\n{", close=True), 502, "engine_interrupted",
    ),
    "bad chunks": (
        raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\nokapi\r\n", close=True), 502, "engine_error",
    ),
}  # fmt: skip


async def cut(writer: asyncio.StreamWriter) -> None:
    """Returns once the router has given this connection up."""
    reader: asyncio.StreamReader = writer.transport.get_protocol()._stream_reader  # type: ignore[attr-defined]
    await until(lambda: reader.at_eof() or writer.transport.is_closing())


async def silent(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    await cut(writer)


async def check(router: Rough, said: Said, expected: tuple[int, str]) -> None:
    assert (said.status, said.code) == expected
    assert not leaks(said, *WORDS)
    record = await router.outcome(said)
    assert (record.status, record.code) == expected
    assert len(router.outcomes()) == 1
    assert not [
        word for word in WORDS if word in record.canonical().decode().replace(str(record.version), "")
    ]
    text = (await router.house.get("/metrics")).body
    assert f'code="{expected[1]}"'.encode() in text
    assert not [word for word in WORDS if word.encode() in text]


async def test_whole_answers_that_are_none(tmp_path: Path) -> None:
    """One router for each, because a circuit opens after three."""

    async def one(name: str, reply: Reply, code: int, expected: str) -> None:
        async with rough(tmp_path / name, reply) as router:
            said = await router.ask(router.request(logprobs=True, top_logprobs=1))
            try:
                await check(router, said, (code, expected))
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error

    await asyncio.gather(*(one(name, *case) for name, case in WHOLE.items()))


def words(body: dict[str, Any]) -> list[bytes]:
    return [chunk(body, "a"), chunk(body, "b")]


def framed(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def event(body: dict[str, Any], logprobs: Any) -> dict[str, Any]:
    part = {"index": 0, "delta": {"content": "okapi"}, "logprobs": logprobs, "finish_reason": None}
    return {"object": "chat.completion.chunk", "created": 1, "model": body["model"], "choices": [part]}


DONE = b"data: [DONE]\n\n"
STREAMS: dict[str, tuple[Reply, str]] = {
    "dies": (streaming(words, end=False, close=True), "engine_interrupted"),
    "ends without a finish reason": (streaming(lambda b: [*words(b), DONE]), "engine_interrupted"),
    "ends without a word": (streaming(words), "engine_interrupted"),
    "an error and DONE": (streaming(lambda b: [*words(b), framed(ERROR), DONE]), "engine_interrupted"),
    "lies about its model later": (
        streaming(lambda b: [*words(b), chunk(b | {"model": "base"}, "okapi"), DONE]),
        "engine_answer_mismatch",
    ),
    "garbage later": (streaming(lambda b: [*words(b), b"data: okapi\n\n", DONE]), "engine_error"),
    "words after the end": (
        streaming(lambda b: [*words(b), chunk(b, "", finish="stop"), chunk(b, "okapi"), DONE]),
        "engine_error",
    ),
    "a choice nobody asked for": (
        streaming(lambda b: [*words(b), chunk(b, "okapi", index=7), DONE]), "engine_error",
    ),
    "a logprob as text": (
        streaming(lambda b: [*words(b), framed(event(b, {"content": [TOKEN | {"logprob": "okapi"}]})), DONE]),
        "engine_error",
    ),
    "an event without end": (
        streaming(lambda b: [*words(b), b"data: " + b"x" * (LIMIT + 100)], end=False), "engine_error",
    ),
    "a whole answer inside": (
        streaming(lambda b: [*words(b), framed(completion(b, "okapi")), DONE]), "engine_error",
    ),
}  # fmt: skip


async def test_streams_that_go_wrong_under_way(tmp_path: Path) -> None:
    async def one(name: str, reply: Reply, expected: str) -> None:
        async with rough(tmp_path / name, reply) as router:
            said = await router.ask(router.request(stream=True, logprobs=True))
            assert said.status == 200, name
            *before, last = said.events
            assert last["error"]["code"] == expected, name
            text = "".join(event["choices"][0]["delta"].get("content") or "" for event in before)
            assert text == "ab", name
            assert not leaks(said, *WORDS), name
            record = await router.outcome(said)
            assert record.code == expected, name
            assert record.answer == content_digest(["ab"]), name  # what the client got, and no more

    await asyncio.gather(*(one(name, *case) for name, case in STREAMS.items()))


TWICE: dict[str, list[tuple[str, str | None]]] = {
    "words beside the end": [("okapi", None), ('{"a":1}', "stop")],
    "words behind the end": [('{"a":1}', "stop"), ("okapi", None)],
    "two ends": [('{"a":1}', "stop"), ('{"a":2}', "stop")],
    "words": [("oka", None), ("pi", None)],
}
SURFACES: dict[str, tuple[str, dict[str, Any], bytes]] = {
    "/v1/chat/completions": ("chat.completion.chunk", {}, b"[DONE]"),
    "/v1/completions": ("text_completion", {"prompt": "x"}, b"[DONE]"),
    "/v1/responses": ("chat.completion.chunk", {"input": "x"}, b"response.completed"),
    "/v1/messages": (
        "chat.completion.chunk", {"max_tokens": 9, "messages": [{"role": "user", "content": "x"}]},
        b"message_stop",
    ),
}  # fmt: skip


async def test_an_event_names_no_choice_twice(tmp_path: Path) -> None:
    """Each part would be judged by what came before the event, and so not by the other."""

    async def one(path: str, name: str) -> None:
        kind, question, end = SURFACES[path]
        choices = [
            {"index": 0, "delta": {"content": text}, "text": text, "finish_reason": reason}
            for text, reason in TWICE[name]
        ]

        def event(body: dict[str, Any]) -> list[bytes]:
            return [framed({"object": kind, "created": 1, "model": body["model"], "choices": choices}), DONE]

        async with rough(tmp_path / path.replace("/", "-") / name, streaming(event)) as router:
            asked = {"model": "assistant", "stream": True, **question}
            body = None if path == "/v1/chat/completions" else orjson.dumps(asked)
            said = await router.ask(router.request(body, path=path.encode(), stream=True))
            assert not leaks(said, *WORDS, '{\\"a', '{"a'), (path, name)
            assert end not in said.body, (path, name)
            assert (await router.outcome(said)).code == "engine_error", (path, name)

    await asyncio.gather(*(one(path, name) for path in SURFACES for name in TWICE))


async def test_one_tenants_long_answers_take_no_engine_from_another(tmp_path: Path) -> None:
    """Without streaming an engine is silent until its last token, whatever it does meanwhile."""

    async def slow(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if body["messages"][0]["content"] == "at length":
            await cut(writer)
        else:
            writer.write(whole(orjson.dumps(completion(body, "fine"))))

    async with rough(tmp_path, slow, first_byte=0.1) as router:
        other = router.house.scene.key("retail_b")
        await router.house.publish()
        question = router.request(messages=[{"role": "user", "content": "at length"}])
        found = await asyncio.gather(*(router.ask(question) for _ in range(6)))
        assert {said.code for said in found} == {"engine_timeout"}
        theirs = router.request(None, b"Authorization: Bearer " + other.encode(), key=False, model="cashier")
        assert (await router.ask(theirs)).status == 200
        # and what answers them answers this one again
        assert (await router.ask(router.request())).status == 200


async def test_a_dead_engine_is_left_alone_by_all(tmp_path: Path) -> None:
    async with rough(tmp_path, silent, first_byte=0.1) as router:
        other = router.house.scene.key("retail_b")
        await router.house.publish()
        theirs = router.request(None, b"Authorization: Bearer " + other.encode(), key=False, model="cashier")
        for _ in range(2):
            assert (await router.ask(router.request())).code == "engine_timeout"
        assert (await router.ask(theirs)).code == "engine_timeout"
        before = len(router.engine.bodies)
        for data in (theirs, router.request()):
            assert (await router.ask(data)).code == "engine_unavailable"
        assert len(router.engine.bodies) == before


async def split(tmp_path: Path, cut: int) -> tuple[bytes, bytes]:
    """The same stream in pieces of ``cut`` bytes, with every kind of line end."""

    async def reply(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        events = b"".join(
            stream(body, ["gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n", "\N{OK HAND SIGN}", "\\n\n"])
        )
        events = b": a comment\r\n\r\n" + events.replace(b"\n\n", b"\r\n\r\n", 2).replace(b"\n\n", b"\r\r", 1)
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(events), cut):
            part = events[at : at + cut]
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
            await asyncio.sleep(0)  # a write of its own, so that most arrive alone
        writer.write(b"0\r\n\r\n")

    async with rough(tmp_path / str(cut), reply) as router:
        said = await router.ask(router.request(stream=True))
        record = await router.outcome(said)
        assert record.code is None
        text = "".join(
            one["delta"].get("content") or "" for event in said.events[:-1] for one in event["choices"]
        )
        return text.encode(), said.events[-1].encode()


async def test_a_stream_may_be_cut_anywhere(tmp_path: Path) -> None:
    """Every byte alone, and at every distance up to a whole event; tests/property cuts at random."""
    found = await asyncio.gather(*(split(tmp_path, cut) for cut in (1, 2, 3, 5, 7, 64, 1000, 100_000)))
    assert set(found) == {
        ("gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n\N{OK HAND SIGN}\\n\n".encode(), b"[DONE]")
    }


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_engine_that_never_answers(tmp_path: Path, streamed: bool) -> None:
    async with rough(tmp_path, silent, connect=0.1, first_byte=0.1) as router:
        await check(router, await router.ask(router.request(stream=streamed)), (504, "engine_timeout"))
        await until(lambda: router.engine.closed == router.engine.connections)


async def test_an_engine_that_stops_answering(tmp_path: Path) -> None:
    async def stalls(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(pieces(*words(body), end=False))
        await cut(writer)

    async with rough(tmp_path, stalls, between_chunks=0.1) as router:
        said = await router.ask(router.request(stream=True))
        assert said.events[-1]["error"]["code"] == "engine_timeout"
        assert (await router.outcome(said)).code == "engine_timeout"


@pytest.mark.parametrize("warm", [False, True])
async def test_an_engine_that_hangs_up_before_a_word(tmp_path: Path, warm: bool) -> None:
    async def dies(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * _STALE_SECONDS)  # at work
        writer.close()

    async with rough(tmp_path, raw(whole(b"{}"))) as router:
        if warm:
            answer = await router.house.app._pipeline.attempts.engines.ask(router.engine.url, b"{}")
            assert await answer.read() == b"{}"
            await answer.close()
        router.engine.reply = dies
        await check(router, await router.ask(router.request()), (503, "engine_unavailable"))
        assert len(router.engine.bodies) == 1 + warm, "it is asked once"


async def test_a_stream_without_end_has_one(tmp_path: Path) -> None:
    async def endless(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        event = chunk(body, "ha" * 2000)
        while True:
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()

    async with rough(tmp_path, endless) as router:
        said = await router.ask(router.request(stream=True))
        assert said.events[-1]["error"]["code"] == "engine_error"
        assert len(said.body) < 2 * LIMIT
        assert (await router.outcome(said)).code == "engine_error"
        await until(lambda: router.engine.closed == router.engine.connections)


async def test_a_second_answer_is_nobodys(tmp_path: Path) -> None:
    """What comes behind an answer would be the next client's: that connection is never used again."""

    async def twice(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        answer = whole(orjson.dumps(completion(body, "mine")))
        writer.write(answer + whole(orjson.dumps(completion(body, "okapi"))))

    async with rough(tmp_path, twice) as router:
        found = [await router.ask(router.request()) for _ in range(4)]
        for said in found:
            assert not leaks(said, "okapi")
            if said.status == 200:
                assert orjson.loads(said.body)["choices"][0]["message"]["content"] == "mine"
            else:
                assert said.code in {"engine_error", "engine_unavailable", "engine_interrupted"}
            await router.outcome(said)
        assert found[0].status == 200


async def test_an_answer_before_the_question_is_nobodys(tmp_path: Path) -> None:
    async def early(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(whole(orjson.dumps(completion(body, "mine"))))
        await writer.drain()
        await asyncio.sleep(0.05)  # the connection is idle, and waits for the next client
        writer.write(whole(orjson.dumps(completion(body, "okapi"))))

    async with rough(tmp_path, early) as router:
        for _ in range(3):
            said = await router.ask(router.request())
            assert orjson.loads(said.body)["choices"][0]["message"]["content"] == "mine"
            await asyncio.sleep(0.1)


async def test_a_client_that_reads_nothing_holds_no_memory(tmp_path: Path) -> None:
    """Its engine is made to wait, and is let go when the client leaves."""
    sent = 0

    async def floods(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        event = chunk(body, "ha" * 2000)
        while True:
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            sent += len(event)

    async with rough(tmp_path, floods, limits=Limits(body_bytes=LIMIT, answer_bytes=1 << 30)) as router:
        _, writer = await asyncio.open_connection("127.0.0.1", router.port, limit=1024)
        writer.write(router.request(stream=True))
        await until(lambda: sent > 0)
        before = -1
        while before != sent:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 64 << 20  # socket buffers at both sides, and a few pieces
        writer.transport.abort()
        await until(lambda: router.engine.closed == router.engine.connections)
        await until(lambda: [record.code for record in router.outcomes()] == ["client_closed"])
        await router.at_rest()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_leaves_stops_the_engine_within_a_second(tmp_path: Path, streamed: bool) -> None:
    async def thinks(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if streamed:
            writer.write(pieces(*words(body), end=False))
        await cut(writer)

    async with rough(tmp_path, thinks) as router:
        _, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(router.request(stream=streamed))
        await until(lambda: len(router.engine.bodies) == 1)
        began = time.monotonic()
        writer.transport.abort()
        await until(lambda: router.engine.closed == router.engine.connections)
        assert time.monotonic() - began < 1
        await until(lambda: [record.code for record in router.outcomes()] == ["client_closed"])
        await router.at_rest()


def test_the_client_here_reads_what_servers_write() -> None:
    data = b"HTTP/1.1 100 Continue\r\n\r\n" + whole(b"{}") + pieces(b"a", b"bc")
    assert [(said.status, said.body) for said in responses(data)] == [(200, b"{}"), (200, b"abc")]
