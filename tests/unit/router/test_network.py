"""Real sockets: the ``openai`` client, uvicorn in front, an engine whose every byte is chosen behind."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest
import uvicorn

from router.errors import EngineInterrupted, EngineTimeout, EngineUnavailable, NothingSent
from router.forwarding import AiohttpEngines, read_all
from router.limits import Timeouts
from router.receipts import verify_receipt
from router.testing import chunk, completion, stream, usage_chunk
from tests.unit.router.conftest import SCHEMA
from tests.unit.router.driving import House, until

Reply = Callable[[dict[str, Any], asyncio.StreamWriter], Awaitable[None]]
GOOD = '{"zeta":"z","amount":3}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Engine:
    """A tiny HTTP/1.1 server; ``reply`` writes the raw response."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.requests: list[bytes] = []
        self.connections = 0
        self.closed = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                length = next(int(x.split(":")[1]) for x in lines if x.lower().startswith("content-length"))
                body = await reader.readexactly(length)
                self.requests.append(head)
                await self.reply(orjson.loads(body), writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed += 1
            writer.close()


@asynccontextmanager
async def engine(reply: Reply) -> AsyncIterator[Engine]:
    found = Engine(reply)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()


def whole(value: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(value) + value


def pieces(*parts: bytes, end: bool = True) -> bytes:
    """A chunked response, one HTTP chunk a part."""
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked + (b"0\r\n\r\n" if end else b"")


async def honest(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    if body["stream"]:
        writer.write(pieces(*stream(body, "hello")))
    else:
        writer.write(whole(orjson.dumps(completion(body, "hello"))))


class Running:
    """A router on real sockets in front of one engine, with bank_a served."""

    def __init__(self, house: House, engine: Engine, port: int) -> None:
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
        house = House(folder, engines=AiohttpEngines(Timeouts(**timeouts)))
        house.scene.engine(url=behind.url)
        secret = house.scene.serve("bank_a", schema)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            config = uvicorn.Config(house.app, log_config=None, lifespan="on", timeout_graceful_shutdown=5)
            server = uvicorn.Server(config)
            server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            await until(lambda: server.started)
            await house.publish()
            found = Running(house, behind, listener.getsockname()[1])
            found.secret = secret
            try:
                yield found
            finally:
                server.should_exit = True
                await serving


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


# -- the forwarder alone, byte by byte --------------------------------------------------------------------


@asynccontextmanager
async def forwarder(reply: Reply, **timeouts: float) -> AsyncIterator[tuple[AiohttpEngines, Engine]]:
    async with engine(reply) as behind:
        engines = AiohttpEngines(Timeouts(**timeouts))
        await engines.start()
        try:
            yield engines, behind
        finally:
            await engines.stop()


def raw(data: bytes, *, hang: bool = False, close: bool = False) -> Reply:
    async def reply(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if hang:
            await asyncio.Event().wait()
        if close:
            writer.close()

    return reply


async def fetch(engines: AiohttpEngines, url: str) -> bytes:
    answer = await engines.ask(f"{url}/v1/chat/completions", b"{}")
    try:
        return await read_all(answer, 1 << 20)
    finally:
        await answer.close()


async def test_connections_are_reused_and_redirects_are_not_followed() -> None:
    async with forwarder(raw(whole(b"{}"))) as (engines, behind):
        assert [await fetch(engines, behind.url) for _ in range(3)] == [b"{}"] * 3
        assert behind.connections == 1
        behind.reply = raw(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
        answer = await engines.ask(behind.url, b"{}")
        assert answer.status == 307
        await answer.close()


async def test_a_connection_that_breaks_after_sending_is_no_reason_to_retry() -> None:
    async with forwarder(raw(b"", close=True)) as (engines, behind):
        with pytest.raises(EngineUnavailable) as caught:
            await fetch(engines, behind.url)
        assert not isinstance(caught.value, NothingSent)
        assert len(behind.requests) == 1


async def test_a_refused_connection_sent_nothing() -> None:
    async with forwarder(raw(b"")) as (engines, _):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        with pytest.raises(NothingSent):
            await fetch(engines, f"http://127.0.0.1:{port}")


async def test_garbage_and_cut_bodies() -> None:
    async with forwarder(raw(b"garbage\r\n\r\n", close=True)) as (engines, behind):
        with pytest.raises(EngineUnavailable):
            await fetch(engines, behind.url)
        behind.reply = raw(HEAD + b"Content-Length: 100\r\n\r\n{", close=True)
        with pytest.raises(EngineInterrupted):
            await fetch(engines, behind.url)
        behind.reply = raw(pieces(b"data: x\n\n", end=False), close=True)
        with pytest.raises(EngineInterrupted):
            await fetch(engines, behind.url)


async def test_patience_ends() -> None:
    async with forwarder(raw(b"", hang=True), connect=0.02, first_byte=0.02) as (engines, behind):
        with pytest.raises(EngineTimeout):
            await fetch(engines, behind.url)
    silent = raw(pieces(usage_chunk({"model": "m"}), end=False), hang=True)
    async with forwarder(silent, between_chunks=0.02) as (engines, behind):
        with pytest.raises(EngineTimeout):
            await fetch(engines, behind.url)


async def test_before_the_start_nothing_is_reached() -> None:
    with pytest.raises(EngineUnavailable):
        await AiohttpEngines(Timeouts()).ask("http://127.0.0.1:1", b"{}")
