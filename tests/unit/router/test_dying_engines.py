"""Engines that die under an answer, over real sockets: while nothing of it was sent, another one answers.

``warm``: they are asked on connections that carried an answer before, as nearly all requests are under load.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from registry.models import OnInvalid, Quota
from router.limits import Freshness, Timeouts
from router.placement import LEASE_SECONDS
from router.testing import chunk, completion, stream, usage_chunk
from router.upstream import EnginePool
from tests.unit.router.conftest import SCHEMA
from tests.unit.router.driving import QUESTION, House, Response, until
from tests.unit.router.raw_engine import HEAD, Engine, Reply, engine, pieces, raw, whole

Surface = tuple[str, dict[str, Any], Callable[[Mapping[str, Any]], dict[str, Any]]]


def text_completion(body: Mapping[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, "text": "fine", "logprobs": None, "finish_reason": "stop"}
    return completion(body, object="text_completion", choices=[choice])


def embeddings(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "object": "list",
        "model": body["model"],
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


SURFACES: dict[str, Surface] = {
    "chat": ("/v1/chat/completions", QUESTION, completion),
    "completions": ("/v1/completions", {"model": "assistant", "prompt": "hi"}, text_completion),
    "responses": ("/v1/responses", {"model": "assistant", "input": "hi"}, completion),
    "messages": ("/v1/messages", QUESTION | {"max_tokens": 9}, completion),
    "embeddings": ("/v1/embeddings", {"model": "assistant", "input": "hi"}, embeddings),
}


def dying(cut: Callable[[bytes], int], tell: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Reply:
    """Sends the answer up to ``cut`` of its bytes, then the connection is gone."""

    async def reply(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        answer = whole(orjson.dumps(tell(body)))
        writer.write(answer[: cut(answer)])
        await writer.drain()
        writer.close()

    return reply


def telling(tell: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Reply:
    return dying(len, tell)


def events(*parts: Callable[[dict[str, Any]], bytes], end: bool = False) -> Reply:
    """A stream of these, then its end or nothing more."""

    async def reply(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(pieces(*(part(body) for part in parts), end=end))
        await writer.drain()
        writer.close()

    return reply


async def honest(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    writer.write(pieces(*stream(body, "hello")) if body["stream"] else whole(orjson.dumps(completion(body))))


class Fleet:
    """A router in front of engines on sockets; the n-th of all requests to them gets the n-th reply."""

    def __init__(self, folder: Path, replies: list[Reply]) -> None:
        self.pool = EnginePool(Timeouts())
        self.house = House(folder, engines=self.pool, freshness=Freshness(serve=2 * LEASE_SECONDS))
        self.left = replies
        self.engines: dict[str, Engine] = {}
        self.asked: list[str] = []
        self.secret = ""

    def engine(self, name: str) -> Reply:
        async def reply(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
            if body == WARM:
                writer.write(whole(b"{}"))
                return
            self.asked.append(name)
            await self.left.pop(0)(body, writer)

        return reply

    async def warm(self) -> None:
        """A kept-open connection to each engine."""
        for behind in self.engines.values():
            answer = await self.pool.ask(behind.url, orjson.dumps(WARM))
            while await answer.read():
                pass
            await answer.close()
        assert self.pool.free == len(self.engines)

    def gone(self) -> Reply:
        """The engine asked is dead, and its port with it."""

        async def reply(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
            self.engines[self.asked[-1]].server.close()
            writer.transport.abort()

        return reply

    def lines(self, response: Response) -> list[tuple[str, str | None, int | None]]:
        found = [record for record in self.house.records() if record.id == response.record]
        return [(record.event, record.engine, record.status) for record in found]

    async def at_rest(self) -> bool:
        """Nothing is held any more, in any engine."""
        scrape = (await self.house.get("/metrics")).body.decode().splitlines()
        held = [line for line in scrape if line.startswith("tenon_engine_requests_in_flight{")]
        return all(line.endswith(" 0.0") for line in held) and not self.house.app.drain.busy

    async def ask(self, surface: str = "chat", **changes: Any) -> Response:
        path, body, _ = SURFACES[surface]
        return await self.house.call(self.secret, {**body, **changes}, path=path).done()

    @property
    def used(self) -> int:
        """Tokens of the minute."""
        minute = self.house.app.admission.accounts["tenant/bank_a"].tokens
        assert minute is not None
        return minute.used


@asynccontextmanager
async def fleet(
    folder: Path, *replies: Reply, engines: int = 2, warm: bool = False, **policy: Any
) -> AsyncIterator[Fleet]:
    found = Fleet(folder, list(replies))
    async with AsyncExitStack() as stack:
        for name in [f"engine-{number}" for number in range(engines)]:
            behind = await stack.enter_async_context(engine(found.engine(name)))
            found.engines[name] = behind
            found.house.scene.engine(name, behind.url)
        found.secret = found.house.scene.serve("bank_a", **policy)
        tenant = found.house.scene.tenants["bank_a"]
        limited = tenant.model_copy(update={"quota": Quota(tokens_per_minute=LIMIT)})
        found.house.scene.tenants["bank_a"] = limited
        await found.house.app.start()
        await found.house.publish()
        if warm:
            await found.warm()
        yield found
        assert await found.at_rest()
        await found.house.app.stop()


WARM = {"warm": True}
LIMIT = 100_000
CUTS: dict[str, Callable[[bytes], int]] = {
    "before its head": lambda _: 0,
    "in its head": lambda _: 20,
    "behind its head": lambda answer: answer.index(b"\r\n\r\n") + 4,
    "in its body": lambda answer: len(answer) - 30,
    "before its last byte": lambda answer: len(answer) - 1,
}


@pytest.fixture(autouse=True)
def at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast these engines die, it is not their patience with idle connections that ended."""
    monkeypatch.setattr("router.upstream.connection._STALE_SECONDS", 0)


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(
    ("cut", "warm"), [*((cut, False) for cut in CUTS), ("before its head", True), ("in its head", True)]
)
async def test_another_engine_answers_in_its_place(
    tmp_path: Path, surface: str, cut: str, warm: bool
) -> None:
    tell = SURFACES[surface][2]
    async with fleet(tmp_path, dying(CUTS[cut], tell), telling(tell), warm=warm) as router:
        found = await router.ask(surface)
        first, second = router.asked
        assert (found.status, found.headers["x-tenon-engine"], first != second) == (200, second, True)
        assert router.lines(found) == [("intent", first, None), ("outcome", second, 200)]
        scrape = (await router.house.get("/metrics")).body
        assert f'tenon_engine_retries_total{{engine="{second}"}} 1'.encode() in scrape


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("cut", CUTS)
async def test_where_no_other_engine_is_the_answer_is_lost(tmp_path: Path, cut: str, warm: bool) -> None:
    async with fleet(tmp_path, dying(CUTS[cut], completion), engines=1, warm=warm) as router:
        found = await router.ask()
        headless = cut in ("before its head", "in its head")
        expected = (503, "engine_unavailable") if headless else (502, "engine_interrupted")
        assert (found.status, found.code, len(router.asked)) == (*expected, 1)
        assert router.lines(found)[-1] == ("outcome", "engine-0", expected[0])


@pytest.mark.parametrize("warm", [False, True])
async def test_two_deaths_are_enough(tmp_path: Path, warm: bool) -> None:
    """Whatever kills engines must not get a third one."""
    replies = [dying(CUTS[cut], completion) for cut in ("before its head", "in its body")]
    async with fleet(tmp_path, *replies, engines=4, warm=warm) as router:
        found = await router.ask()
        assert (found.code, len(set(router.asked)), len(router.asked)) == ("engine_interrupted", 2, 2)
        first, second = router.asked
        assert router.lines(found) == [("intent", first, None), ("outcome", second, 502)]


@pytest.mark.parametrize("patience", [0, 5])
async def test_of_engines_that_are_gone_at_once_two_are_enough_too(
    tmp_path: Path, patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the loss was taken for that of an idle connection, and nobody listens any more."""
    monkeypatch.setattr("router.upstream.connection._STALE_SECONDS", patience)
    async with fleet(tmp_path, engines=4, warm=True) as router:
        router.left += [router.gone() for _ in range(4)]
        found = await router.ask()
        assert (found.status, found.code, len(router.asked)) == (503, "engine_unavailable", 2)
        first, second = router.asked
        assert router.lines(found) == [("intent", first, None), ("outcome", second, 503)]
        assert router.used > 0, "two engines worked on it"


async def test_with_durable_intents_no_line_is_written_twice(tmp_path: Path) -> None:
    replies = dying(CUTS["in its body"], completion), honest
    async with fleet(tmp_path, *replies, intent_durable=True) as router:
        found = await router.ask()
        first, second = router.asked
        lines = [("intent", first, None), ("intent", second, None), ("outcome", second, 200)]
        assert router.lines(found) == lines


def comment(_: dict[str, Any]) -> bytes:
    return b": no client gets anything of it\n\n"


def words(body: dict[str, Any]) -> bytes:
    return chunk(body, "hel")


def good(body: dict[str, Any]) -> bytes:
    return chunk(body, '{"zeta":"z","amount":3}')


NOTHING_YET: dict[str, Reply] = {
    "its head": events(),
    "a comment": events(comment),
    "half an event": events(lambda body: words(body)[:-20]),
}


@pytest.mark.parametrize("name", NOTHING_YET)
async def test_a_stream_of_which_nothing_was_sent_is_asked_for_again(tmp_path: Path, name: str) -> None:
    async with fleet(tmp_path, NOTHING_YET[name], honest) as router:
        found = await router.ask(stream=True)
        first, second = router.asked
        assert (found.status, found.text(), found.headers["x-tenon-engine"]) == (200, "hello", second)
        assert router.lines(found) == [("intent", first, None), ("outcome", second, 200)]
        assert first != second


async def test_a_stream_of_which_a_word_was_sent_is_not(tmp_path: Path) -> None:
    async with fleet(tmp_path, events(words), honest) as router:
        found = await router.ask(stream=True)
        assert (found.status, found.events()[-1]["error"]["code"]) == (200, "engine_interrupted")
        assert router.lines(found) == [("outcome", router.asked[0], 502)]


async def test_a_stream_that_is_held_until_it_is_found_good_may_be_lost_whole(tmp_path: Path) -> None:
    policy: dict[str, Any] = {"schema": SCHEMA, "on_invalid": OnInvalid.RETRY}
    last = events(good, lambda body: chunk(body, "", finish="stop"), usage_chunk, end=True)
    async with fleet(tmp_path, events(good, good), last, **policy) as router:
        found = await router.ask(stream=True)
        assert (found.text(), len(set(router.asked))) == ('{"zeta":"z","amount":3}', 2)


WORDS_THAT_STAND: dict[str, tuple[Reply, str]] = {
    "another model": (telling(lambda body: completion(body, model="base")), "engine_answer_mismatch"),
    "garbage": (raw(whole(b"{")), "engine_error"),
    "no chunks": (raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\nokapi\r\n", close=True), "engine_error"),
    "a failure, cut": (raw(b"HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\n{", close=True), "engine_error"),
    "a refusal, cut": (
        raw(b"HTTP/1.1 400 No\r\nContent-Length: 9\r\n\r\n{", close=True), "request_rejected_by_engine",
    ),
    "no end": (
        telling(lambda body: completion(body, choices=[{"index": 0, "message": {}, "finish_reason": None}])),
        "engine_interrupted",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS_THAT_STAND)
async def test_what_an_engine_said_is_not_asked_of_another(tmp_path: Path, name: str) -> None:
    reply, code = WORDS_THAT_STAND[name]
    async with fleet(tmp_path, reply, honest) as router:
        assert ((await router.ask()).code, len(router.asked)) == (code, 1)


async def test_a_stream_that_ends_in_peace_without_its_end_is_not_asked_for_again(tmp_path: Path) -> None:
    async with fleet(tmp_path, events(comment, end=True), honest) as router:
        found = await router.ask(stream=True)
        assert (found.status, found.code, len(router.asked)) == (502, "engine_interrupted", 1)


async def test_nobody_asks_again_for_a_client_that_is_gone(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def reply(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 99\r\n\r\n{")
        await writer.drain()
        call.hang_up()
        await until(call.task.done)
        writer.close()
        gone.set()

    async with fleet(tmp_path, reply, honest) as router:
        call = router.house.call(router.secret, QUESTION)
        await call.done()
        await gone.wait()
        assert ([record.code for record in router.house.records()], len(router.asked)) == (
            ["client_closed"],
            1,
        )


async def test_the_second_engine_has_what_is_left_of_the_time_of_one_exchange(tmp_path: Path) -> None:
    async def late(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        router.house.now += LEASE_SECONDS  # an engine that dies after an hour
        await dying(CUTS["in its body"], completion)(body, writer)

    async def silent(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with fleet(tmp_path, late, silent) as router:
        found = await router.ask()
        assert (found.status, found.code) == (504, "engine_timeout")


@pytest.mark.parametrize(
    ("first", "stream", "used"),
    [
        ("before its head", False, 10),
        ("in its head", False, 10),
        ("in its body", False, 20),  # it had made all that the second one made
        ("a comment", True, 17),  # and read the prompt
    ],
)
async def test_what_died_counts_in_budgets_and_not_as_usage(
    tmp_path: Path, first: str, stream: bool, used: int
) -> None:
    reply = NOTHING_YET[first] if stream else dying(CUTS[first], completion)
    async with fleet(tmp_path, reply, honest) as router:
        found = await router.ask(stream=stream)
        assert router.used == used
        outcome = next(each for each in router.house.records() if each.event == "outcome")
        assert (found.status, outcome.prompt_tokens, outcome.completion_tokens) == (200, 7, 3)


async def test_what_died_takes_no_more_than_the_reservation(tmp_path: Path) -> None:
    def long(body: Mapping[str, Any]) -> dict[str, Any]:
        return completion(body, usage={"prompt_tokens": 100, "completion_tokens": 9, "total_tokens": 109})

    async with fleet(tmp_path, dying(CUTS["in its body"], long), telling(long)) as router:
        await router.ask(max_tokens=9)
        size = len(orjson.dumps(QUESTION | {"max_tokens": 9}))
        assert 109 < router.used == size + 64 + 9 < 2 * 109
