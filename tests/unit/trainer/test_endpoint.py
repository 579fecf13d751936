"""The endpoint client against a real server on the loopback, whose every answer is chosen."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from tests.support.endpoint_server import Answer, refusal, said, serving
from trainer.endpoint import Ask, EndpointClient, Reply, Retries
from trainer.errors import EndpointRefused, EndpointUnreachable
from trainer.recipes.sources import Endpoint

QUESTION = [{"role": "user", "content": "Pay 5"}]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Client(EndpointClient):
    """Waits for nothing and remembers how long it would have waited."""

    def __init__(self, url: str, key: str | None = None, **options: Any) -> None:
        self.pauses: list[float] = []
        retries = options.pop("retries", None)
        endpoint = Endpoint(url=url, model="teacher", **options)
        super().__init__(
            endpoint, key, retries=retries, sleep=self.pauses.append, now=lambda: NOW, random=Random(1)
        )


@pytest.fixture
def opened() -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def make(*args: Any, **options: Any) -> Client:
        clients.append(Client(*args, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


Opened = Callable[..., Client]


def test_an_answer_and_exactly_what_was_sent(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The openai package reads these; a teacher at another company must not receive them."""
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "leaked")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "authorization: leaked\nx-more: leaked")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/leaked")
    with serving(lambda body, number: said("done")) as server:
        client = opened(server.url, "secret", headers={"X-Tenant-ID": "bank_a"})
        assert client.chat(QUESTION, temperature=0.5, max_tokens=9) == "done"
        bare = opened(server.url)
        bare.chat(QUESTION)
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert (headers["authorization"], headers["x-tenant-id"]) == ("Bearer secret", "bank_a")
    assert body == {
        "model": "teacher", "messages": QUESTION, "stream": False, "temperature": 0.5, "max_tokens": 9,
    }  # fmt: skip
    assert "authorization" not in server.seen[1][1]
    assert not any("leaked" in value for _, headers, _ in server.seen for value in headers.values())
    assert not any(name.startswith(("x-stainless", "openai")) for _, sent, _ in server.seen for name in sent)


def test_what_may_pass_is_tried_again_and_waits_longer_each_time(opened: Opened) -> None:
    replies = [refusal(500), refusal(503), refusal(429), refusal(502), said("done")]
    with serving(lambda body, number: replies[number - 1]) as server:
        client = opened(server.url)
        assert client.chat(QUESTION) == "done"
    assert len(server.seen) == 5
    assert [0.5 * 2**n <= pause <= 2**n for n, pause in enumerate(client.pauses)] == [True] * 4
    assert len({pause / 2**n for n, pause in enumerate(client.pauses)}) == 4  # jitter


@pytest.mark.parametrize(
    ("header", "wanted"), [("17", 17.0), ("Thu, 01 Jan 2026 00:01:30 GMT", 90.0), ("soon", None)]
)
def test_retry_after_is_kept_to(opened: Opened, header: str, wanted: float | None) -> None:
    replies = [refusal(429, retry_after=header), said("done")]
    with serving(lambda body, number: replies[number - 1]) as server:
        client = opened(server.url)
        client.chat(QUESTION)
    assert client.pauses == [wanted] if wanted else 0.5 <= client.pauses[0] <= 1.0


def test_a_server_that_wants_too_much_patience_is_given_up(opened: Opened) -> None:
    with serving(lambda body, number: refusal(429, retry_after="3600")) as server:
        client = opened(server.url)
        with pytest.raises(EndpointUnreachable, match="asks to wait 3600 s"):
            client.chat(QUESTION)
    assert (len(server.seen), client.pauses) == (1, [])


def test_a_dead_endpoint_ends_after_the_last_attempt(opened: Opened) -> None:
    with serving(lambda body, number: said("")) as server:
        url = server.url
    client = opened(url, retries=Retries(attempts=3))
    with pytest.raises(
        EndpointUnreachable, match=r"no connection \(ConnectError\) after 3 attempts"
    ) as error:
        client.chat(QUESTION)
    assert len(client.pauses) == 2
    assert "answers already received are kept" in error.value.advice


def test_silence_is_a_timeout(opened: Opened) -> None:
    released = threading.Event()

    def silent(body: dict[str, Any], number: int) -> Answer:
        released.wait(10)
        return said("late")

    with serving(silent) as server:
        client = opened(server.url, timeout=0.2, retries=Retries(attempts=2))
        with pytest.raises(EndpointUnreachable, match=r"no answer in 0\.2 s after 2 attempts"):
            client.chat(QUESTION)
        released.set()


@pytest.mark.parametrize(
    ("reply", "match"),
    [
        (refusal(401, "invalid_api_key"), r"status 401 \(invalid_api_key\): .*no because"),
        (refusal(404, "model_not_found"), "status 404"),
        (refusal(429, "insufficient_quota"), "insufficient_quota"),
        (refusal(307, location="http://127.0.0.1:1/"), "status 307"),
        ((200, {}, {"hello": "world"}), "not with an OpenAI chat completion"),
        ((200, {}, {"choices": []}), "not with an OpenAI chat completion"),
        ((200, {"content-type": "text/html"}, b"<html>"), "not with an OpenAI chat completion"),
    ],
)
def test_a_refusal_is_not_repeated(opened: Opened, reply: Answer, match: str) -> None:
    with serving(lambda body, number: reply) as server, pytest.raises(EndpointRefused, match=match):
        opened(server.url).chat(QUESTION)
    assert len(server.seen) == 1


def test_half_a_body_is_tried_again(opened: Opened) -> None:
    replies: list[Answer] = [(200, {}, b'{"choices": [{'), said("done")]
    with serving(lambda body, number: replies[number - 1]) as server:
        assert opened(server.url).chat(QUESTION) == "done"


def test_a_cut_answer_and_tool_calls_are_told(opened: Opened) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "get_rate", "arguments": "{}"}}
    replies = [said("half", finish_reason="length"), said(None, message={"tool_calls": [call]})]
    with serving(lambda body, number: replies[number - 1]) as server:
        client = opened(server.url)
        assert client.ask(Ask(QUESTION)) == Reply("half", finished=False)
        assert client.ask(Ask(QUESTION)) == Reply("", calls=({"name": "get_rate", "arguments": "{}"},))


def asks(count: int) -> list[Ask]:
    return [Ask([{"role": "user", "content": str(number)}]) for number in range(count)]


def asked(body: dict[str, Any]) -> int:
    return int(body["messages"][0]["content"])


def test_many_at_a_time_and_no_more(opened: Opened) -> None:
    together = threading.Barrier(3, timeout=20)

    def reply(body: dict[str, Any], number: int) -> Answer:
        together.wait()  # answers only once three are under way
        return said(str(asked(body) * 2))

    with serving(reply) as server:
        got = dict(opened(server.url, concurrency=3).chat_many(asks(12)))
    assert {place: answer.text for place, answer in got.items()} == {n: str(2 * n) for n in range(12)}
    assert server.most == 3


def test_a_teacher_that_dies_halfway_loses_no_answer(opened: Opened) -> None:
    """Two are under way when the third fails for good: both still arrive, and nothing new is asked."""
    failed = threading.Event()

    def reply(body: dict[str, Any], number: int) -> Answer:
        if asked(body) == 2:
            failed.set()
            return refusal(403, "cut_off")
        if asked(body) in (0, 1):
            failed.wait(20)
        return said(str(asked(body)))

    got: list[int] = []
    with serving(reply) as server, pytest.raises(EndpointRefused, match="cut_off"):
        got.extend(place for place, _ in opened(server.url, concurrency=3).chat_many(asks(40)))
    assert {0, 1} <= set(got)
    assert len(server.seen) <= 6
    assert sorted(got) == sorted(asked(body) for _, _, body in server.seen if asked(body) != 2)


def test_a_caller_that_stops_listening_stops_the_asking(opened: Opened) -> None:
    with serving(lambda body, number: said("x")) as server:
        client = opened(server.url, concurrency=2)
        answers = client.chat_many(asks(30))
        next(answers)
        answers.close()  # type: ignore[attr-defined]  # it is a generator
        assert len(server.seen) <= 4
        assert client.chat(QUESTION) == "x"  # and the client is usable again


@pytest.mark.parametrize("failed", range(1, 9))
def test_pauses_are_bounded(failed: int) -> None:
    pauses = [Retries().pause(failed, Random(seed)) for seed in range(200)]
    assert all(0 < pause <= 20 for pause in pauses)
