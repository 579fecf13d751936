"""Real sockets: the ``openai`` client, uvicorn in front, an engine whose every byte is chosen behind."""

import asyncio
import signal
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from router import serving
from router.limits import Timeouts
from router.receipts import verify_receipt
from router.records import content_digest
from router.testing import chunk, completion, stream
from router.upstream import EnginePool
from tests.unit.router.conftest import SCHEMA
from tests.unit.router.driving import House, until
from tests.unit.router.raw_engine import HEAD, Engine, Reply, engine, pieces, whole

GOOD = '{"zeta":"z","amount":3}'


async def honest(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    if body["stream"]:
        writer.write(pieces(*stream(body, "hello")))
    else:
        writer.write(whole(orjson.dumps(completion(body, "hello"))))


class Running:
    """A router on real sockets in front of one engine, with bank_a served."""

    def __init__(
        self, house: House, engine: Engine, port: int, server: serving.Server, stopped: asyncio.Task[None]
    ) -> None:
        self.port = port
        self.stopped = stopped
        self.server = server
        self.house = house
        self.engine = engine
        self.url = f"http://127.0.0.1:{port}"
        self.secret = ""

    def client(self, secret: str | None = None, **headers: str) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            api_key=secret or self.secret,
            base_url=f"{self.url}/v1",
            max_retries=0,
            default_headers={name.replace("_", "-"): value for name, value in headers.items()},
        )


@asynccontextmanager
async def running(
    folder: Path, reply: Reply, schema: dict[str, Any] | None = None, **timeouts: float
) -> AsyncIterator[Running]:
    async with engine(reply) as behind:
        house = House(folder, engines=EnginePool(Timeouts(**timeouts)))
        house.scene.engine(url=behind.url)
        secret = house.scene.serve("bank_a", schema)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = serving.server(house.app, house.app.drain, seconds=5, log_config=None)
            running = asyncio.create_task(server.serve(sockets=[listener]))
            await until(lambda: server.started)
            await house.publish()
            found = Running(house, behind, listener.getsockname()[1], server, running)
            found.secret = secret
            try:
                yield found
            finally:
                server.should_exit = True
                await running


ASKING: dict[str, Any] = {"model": "assistant", "messages": [{"role": "user", "content": "hi"}]}


async def test_the_openai_client_gets_an_answer_and_a_receipt(tmp_path: Path) -> None:
    async with running(tmp_path, honest) as router, router.client(X_Tenant_ID="bank_a") as client:
        raw = await client.chat.completions.with_raw_response.create(**ASKING)
        answer = raw.parse()
        assert (answer.model, answer.choices[0].message.content) == ("assistant", "hello")
        assert answer.usage is not None
        assert answer.usage.total_tokens == 10
        assert [model.id async for model in client.models.list()] == ["assistant"]
        receipt = await client.get(f"/receipts/{raw.headers['x-tenon-record']}", cast_to=bytes)
        record = verify_receipt(receipt, router.house.trusted)
        assert record.version == raw.headers["x-tenon-version"]
        sent = router.engine.requests[0].lower()
        for leaked in (b"authorization", b"x-tenant", b"x-stainless", b"cookie", b"openai"):
            assert leaked not in sent
        assert sent.startswith(b"post /v1/chat/completions http/1.1")


async def test_the_openai_client_streams(tmp_path: Path) -> None:
    async with running(tmp_path, honest) as router, router.client() as client:
        for _ in range(3):
            events = await client.chat.completions.create(**ASKING, stream=True)
            found = [event async for event in events]
            assert "".join(event.choices[0].delta.content or "" for event in found) == "hello"
            assert found[-1].choices[0].finish_reason == "stop"
            assert {event.model for event in found} == {"assistant"}
        assert router.engine.connections == 1  # finished streams give their connection back


async def test_the_openai_client_knows_our_errors(tmp_path: Path) -> None:
    async with running(tmp_path, honest) as router:
        cases: list[tuple[dict[str, str], dict[str, Any], type[openai.APIStatusError], str]] = [
            ({"secret": "tn_nobody"}, {}, openai.AuthenticationError, "invalid_api_key"),
            ({"X_Tenant_ID": "retail_b"}, {}, openai.PermissionDeniedError, "tenant_mismatch"),
            ({}, {"model": "nothing"}, openai.NotFoundError, "model_not_found"),
            ({}, {"extra_body": {"cache_salt": "x"}}, openai.BadRequestError, "unsupported_parameter"),
            ({}, {"max_tokens": 9999}, openai.BadRequestError, "sampling_out_of_bounds"),
        ]
        for given, changes, kind, code in cases:
            async with router.client(**given) as client:
                with pytest.raises(kind) as caught:
                    await client.chat.completions.create(**ASKING | changes)
                assert caught.value.code == code
                assert caught.value.request_id is not None
        assert not router.engine.requests


async def test_the_openai_client_hears_of_a_broken_answer(tmp_path: Path) -> None:
    async def cut(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        choice = {"index": 0, "message": {"content": GOOD[:-1]}, "finish_reason": "length"}
        writer.write(whole(orjson.dumps(completion(body, choices=[choice]))))

    async with running(tmp_path, cut, SCHEMA) as router, router.client() as client:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            await client.chat.completions.create(**ASKING)
        assert caught.value.code == "output_truncated"

        async def wrong(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
            writer.write(whole(orjson.dumps(completion({"model": "base"}, "LEAK"))))

        router.engine.reply = wrong
        with pytest.raises(openai.InternalServerError) as failed:
            await client.chat.completions.create(**ASKING)
        assert failed.value.code == "engine_answer_mismatch"


async def test_the_openai_client_hears_of_a_stream_that_broke(tmp_path: Path) -> None:
    async def dies(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        frame = b'data: {"error":{"message":"dead"}}\n\n'
        writer.write(pieces(chunk(body, "a"), frame, b"data: [DONE]\n\n"))

    async with running(tmp_path, dies) as router, router.client() as client:
        events = await client.chat.completions.create(**ASKING, stream=True)
        with pytest.raises(openai.APIError) as caught:
            [event async for event in events]
        assert caught.value.code == "engine_interrupted"


async def test_a_client_that_hangs_up_closes_the_engines_connection(tmp_path: Path) -> None:
    async def endless(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(pieces(chunk(body, "a"), end=False))
        await writer.drain()

    async with running(tmp_path, endless) as router, router.client() as client:
        events = await client.chat.completions.create(**ASKING, stream=True)
        assert (await anext(events)).choices[0].delta.content == "a"
        await events.close()
        await until(lambda: router.engine.closed == 1)
        await until(lambda: router.house.records()[-1].code == "client_closed")


async def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    async with running(tmp_path, honest) as router:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        router.house.scene.engines.clear()
        router.house.scene.engine(url=f"http://127.0.0.1:{port}")
        await router.house.publish()
        async with router.client() as client:
            with pytest.raises(openai.InternalServerError) as caught:
                await client.chat.completions.create(**ASKING)
            assert (caught.value.status_code, caught.value.code) == (503, "engine_unavailable")


def request(secret: str, body: dict[str, Any], path: str = "/v1/chat/completions") -> bytes:
    data = orjson.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(data), data)


async def test_a_client_that_hangs_up_before_the_first_byte_stops_the_engine_at_once(tmp_path: Path) -> None:
    async def thinking(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with running(tmp_path, thinking) as router:
        _, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(request(router.secret, ASKING))
        await until(lambda: len(router.engine.bodies) == 1)
        writer.close()
        await until(lambda: bool(router.house.records()))
        assert router.house.records()[-1].code == "client_closed"
        await until(lambda: router.house.app.drain.busy == 0)
        pool = router.house.app._pipeline.attempts.engines
        assert isinstance(pool, EnginePool)
        await until(lambda: pool.connections == 0)


async def test_draining_ends_what_is_under_way_and_takes_nothing_new(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slow(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await honest(body, writer)

    async with running(tmp_path, slow) as router, router.client() as client:
        under_way = asyncio.create_task(client.chat.completions.create(**ASKING))
        await until(lambda: len(router.engine.bodies) == 1)
        router.server.drain()
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(**ASKING)
        assert (caught.value.status_code, caught.value.code) == (503, "router_draining")
        assert caught.value.response.headers["retry-after"] == "1"
        assert (await router.house.get("/readyz")).status == 503
        assert len(router.engine.bodies) == 1
        go_on.set()
        assert (await under_way).choices[0].message.content == "hello"
        await until(lambda: router.server.should_exit)


async def test_a_drain_that_takes_too_long_is_cut(tmp_path: Path) -> None:
    async def never(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with running(tmp_path, never) as router:
        _, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(request(router.secret, ASKING))
        await until(lambda: len(router.engine.bodies) == 1)
        router.server.drain()
        await asyncio.sleep(0.25)
        assert not router.server.should_exit
        router.server._until = 0
        await until(lambda: router.server.should_exit)
        writer.close()


@pytest.mark.parametrize("way", ["whole", "stream", "half a body"])
async def test_what_a_stop_cuts_is_told_and_on_record(tmp_path: Path, way: str) -> None:
    """The second SIGTERM ends the drain; a drain whose time is over ends in the same way."""

    async def hanging(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if body.get("stream"):
            writer.write(pieces(*stream(body, ["once"])[:1], end=False))
            await writer.drain()
        await asyncio.Event().wait()

    async with running(tmp_path, hanging) as router:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        data = request(router.secret, ASKING | ({"stream": True} if way == "stream" else {}))
        writer.write(data if way != "half a body" else data[:-5])
        await until(lambda: router.house.app.drain.busy == 1)
        if way == "stream":
            await reader.readuntil(b"once")
        elif way == "whole":
            await until(lambda: len(router.engine.bodies) == 1)
        for _ in range(2):
            router.server.handle_exit(signal.SIGTERM, None)
        router.server._captured_signals.clear()  # else they are raised again, and end the tests
        said = await reader.read()
        writer.close()
        await router.stopped
        assert b"router_stopped" in said
        assert (b"HTTP/1.1 503" in said) == (way != "stream")
        (outcome,) = [each for each in router.house.records() if each.event == "outcome"]
        assert (outcome.status, outcome.code) == (503, "router_stopped")
        if way == "stream":
            assert outcome.answer == content_digest(["once"])
        assert router.house.heads.envelopes, "no head covers it"
        assert not router.house.app.drain.busy


async def test_a_stop_while_the_outcome_is_written_leaves_one_outcome(tmp_path: Path) -> None:
    going_on = threading.Event()
    async with running(tmp_path, honest) as router:
        segments = router.house.app.records._segments
        write = segments.write

        def slowly(data: bytes) -> tuple[int, int]:
            going_on.wait(10)
            return write(data)

        segments.write = slowly  # type: ignore[method-assign]
        _, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(request(router.secret, ASKING))
        await until(lambda: router.house.app.records._seq == 1)
        for _ in range(2):
            router.server.handle_exit(signal.SIGTERM, None)
        router.server._captured_signals.clear()
        await until(lambda: not router.house.app.drain.busy)
        going_on.set()
        await router.stopped
        writer.close()
        (outcome,) = router.house.records()
        assert (outcome.event, outcome.status) == ("outcome", 200)


async def test_a_reader_that_is_slow_is_waited_for_and_not_buffered(tmp_path: Path) -> None:
    sent, size = 0, 400

    async def flood(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for part in [chunk(body, "x" * 60_000)] * size + stream(body, "")[-3:]:
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
            sent += 1
        writer.write(b"0\r\n\r\n")

    async with running(tmp_path, flood) as router:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(request(router.secret, {**ASKING, "stream": True}))
        before = -1
        while before != sent or not sent:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.2)
        assert sent < size
        found = b""
        while not found.endswith(b"0\r\n\r\n"):
            found = found[-10:] + await reader.read(1 << 20)
        writer.close()
        assert router.house.records()[-1].status == 200


async def test_a_client_that_takes_nothing_for_too_long_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.serving.STALL_SECONDS", 0.2)

    async def flood(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            part = chunk(body, "x" * 60_000)
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()

    async with running(tmp_path, flood) as router:
        _, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(request(router.secret, {**ASKING, "stream": True}))
        await until(lambda: bool(router.house.records()) and router.house.app.drain.busy == 0)
        assert router.house.records()[-1].code == "client_closed"
        writer.close()


async def test_heads_that_are_slow_or_endless_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.serving.HEAD_SECONDS", 0.1)
    async with running(tmp_path, honest) as router:
        late = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        for begun, told in (b"", b""), (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n", late):
            reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
            writer.write(begun)
            assert await reader.read() == told
            writer.close()
        monkeypatch.setattr("router.serving.HEAD_SECONDS", 30)
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nX: ")
        for _ in range(64):
            writer.write(b"x" * 4096)
        assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")
        writer.close()


async def test_requests_sent_one_behind_the_other_are_answered_in_order(tmp_path: Path) -> None:
    async with running(tmp_path, honest) as router:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        one = request(router.secret, ASKING)
        writer.write(one + request("tn_nobody", ASKING) + one[:-5])
        found = b""
        while b"HTTP/1.1 401 " not in found:
            found += (more := await reader.read(1 << 16))
            assert more, "closed before the second answer"
        assert found.startswith(b"HTTP/1.1 200 ")
        writer.close()
