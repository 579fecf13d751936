"""Calls that fail on the way: made again, with effect once, and never for ever."""

import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from registry.catalog.remote.errors import AnswerInvalid, RemoteRefused, Unreachable
from registry.catalog.remote.pages import items
from registry.catalog.remote.wire import Patience, Wire, path
from registry.errors import AliasMoved, GateRefused, InvalidInput, InvalidName, TenonError
from registry.evidence import Verdict

Respond = Callable[[httpx.Request], httpx.Response]


class Server:
    """Answers one after another, and keeps what it was asked."""

    def __init__(self, *answers: Respond | Exception | httpx.Response) -> None:
        self._answers = iter(answers)
        self.asked: list[httpx.Request] = []
        self.pauses: list[float] = []

    def wire(self, **more: object) -> Wire:
        return Wire(
            "https://tenon.test/",
            "tn_key",
            transport=httpx.MockTransport(self._respond),
            pause=self.pauses.append,
            **more,  # type: ignore[arg-type]
        )

    def _respond(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(request)


def ok(value: object = None) -> httpx.Response:
    return httpx.Response(200, json=value)


def problem(status: int, code: str, **more: object) -> httpx.Response:
    return httpx.Response(status, json={"title": "said so", "status": status, "code": code, **more})


class _Torn(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        yield b'{"half": '
        raise httpx.ReadError("cut off")


def test_a_call_names_its_key_and_no_other_host() -> None:
    server = Server(ok({"a": 1}))
    assert server.wire().get("/x", {"limit": 3}) == {"a": 1}
    (asked,) = server.asked
    assert str(asked.url) == "https://tenon.test/api/v1/x?limit=3"
    assert asked.headers["Authorization"] == "Bearer tn_key"
    assert "Idempotency-Key" not in asked.headers


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        lambda _: httpx.Response(200, stream=_Torn()),
        httpx.Response(502, text="<html>proxy</html>"),
        problem(503, "database_busy"),
        problem(429, "too_many_requests"),
        problem(409, "idempotency_in_progress"),
    ],
)
def test_a_write_whose_answer_was_lost_is_sent_again_under_the_same_key(
    failure: Respond | httpx.Response | Exception,
) -> None:
    server = Server(failure, failure, ok({"done": True}))
    assert server.wire().post("/things", {"b": 2}) == {"done": True}
    assert len({asked.headers["Idempotency-Key"] for asked in server.asked}) == 1
    assert {asked.content for asked in server.asked} == {b'{"b": 2}'}
    assert len(server.pauses) == 2
    assert server.pauses[1] > server.pauses[0] * 0.99


def test_two_writes_have_two_keys() -> None:
    server = Server(ok(1), ok(2))
    wire = server.wire()
    wire.post("/x", {})
    wire.post("/x", {})
    assert len({asked.headers["Idempotency-Key"] for asked in server.asked}) == 2


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.Response(503, text="starting"),
        problem(503, "control_unreachable"),
    ],
)
def test_after_the_last_attempt_it_is_unreachable(failure: httpx.Response | Exception) -> None:
    server = Server(*[failure] * 9)
    with pytest.raises(TenonError) as caught:
        server.wire(patience=Patience(attempts=4)).get("/x")
    assert caught.value.status == 503  # what the command line answers with exit code 4
    assert len(server.asked) == 4
    assert len(server.pauses) == 3


def test_an_answer_that_says_no_is_not_asked_for_again() -> None:
    server = Server(problem(409, "alias_moved", hint="look again", epoch=4))
    with pytest.raises(AliasMoved, match="said so") as caught:
        server.wire().post("/x", {})
    assert (caught.value.advice, caught.value.facts) == ("look again", {"epoch": 4})
    assert len(server.asked) == 1


def test_the_wait_that_a_server_asks_for_is_kept() -> None:
    busy = httpx.Response(429, headers={"Retry-After": "7"}, json={"code": "x", "title": "y"})
    endless = httpx.Response(429, headers={"Retry-After": "86400"}, json={"code": "x", "title": "y"})
    server = Server(busy, endless, ok({}))
    server.wire().get("/x")
    assert server.pauses[0] == 7
    assert server.pauses[1] < 6


def test_a_gates_reasons_come_along() -> None:
    digest = "sha256:" + "a" * 64
    verdict = {"passed": False, "reasons": ["too low"], "version": digest, "policy": digest, "reports": []}
    server = Server(problem(403, "gate_refused", verdict=verdict))
    with pytest.raises(GateRefused) as caught:
        server.wire().get("/x")
    assert caught.value.facts["verdict"] == Verdict.build(verdict)


@pytest.mark.parametrize("status", [400, 404, 418, 500])
def test_what_no_tenon_answered_is_an_error_with_a_code(status: int) -> None:
    for answer in (httpx.Response(status, text="<html>"), httpx.Response(status, json=["x"])):
        with pytest.raises(RemoteRefused, match=str(status)):
            Server(answer).wire().get("/x")


def test_an_unknown_code_is_told_and_cannot_steer_the_terminal() -> None:
    with pytest.raises(RemoteRefused) as caught:
        Server(problem(409, "from_the_future", title="a\x1b[2Jb\nc")).wire().get("/x")
    assert "from_the_future" in caught.value.message
    assert caught.value.message.isprintable()


def test_a_redirect_is_not_followed_with_the_key() -> None:
    server = Server(httpx.Response(307, headers={"Location": "https://elsewhere.test/"}))
    with pytest.raises(RemoteRefused, match="307"):
        server.wire().get("/x")
    assert [asked.url.host for asked in server.asked] == ["tenon.test"]


def test_answers_that_are_no_json_are_refused() -> None:
    for body in (b"<html>", b'{"a": 1, "a": 2}', b"NaN"):
        with pytest.raises(AnswerInvalid):
            Server(httpx.Response(200, content=body)).wire().get("/x")


def test_segments_cannot_leave_their_place() -> None:
    assert path("tenants", "a/b?c#d", "x y") == "/tenants/a%2Fb%3Fc%23d/x%20y"
    for segment in ("", ".", ".."):
        with pytest.raises(InvalidName):
            path("tenants", segment)


def test_the_key_shows_nowhere() -> None:
    assert "tn_key" not in repr(Server().wire())
    with pytest.raises(InvalidInput) as caught:
        Wire("https://tenon.test", "tn_secret\nX-Evil: 1")
    assert "secret" not in caught.value.message


def page(*numbers: int, cursor: str | None) -> httpx.Response:
    return ok({"items": list(numbers), "next": cursor})


def test_pages_are_asked_for_when_somebody_reads_that_far() -> None:
    server = Server(page(1, 2, cursor="b"), page(3, 4, cursor="c"), page(5, cursor=None))
    found = items(server.wire(), "/list")
    assert [next(found), next(found), len(server.asked)] == [1, 2, 1]
    assert list(found) == [3, 4, 5]
    assert [asked.url.params.get("cursor") for asked in server.asked] == [None, "b", "c"]


def test_a_limit_asks_for_no_more_than_it_needs() -> None:
    server = Server(page(1, 2, cursor="b"), page(3, 4, cursor="c"))
    assert list(items(server.wire(), "/list", limit=3)) == [1, 2, 3]
    assert {asked.url.params["limit"] for asked in server.asked} == {"3"}
    assert list(items(Server().wire(), "/list", limit=0)) == []


def test_a_list_that_leads_into_itself_ends_in_an_error() -> None:
    server = Server(page(1, cursor="a"), page(2, cursor="a"), page(3, cursor="a"))
    with pytest.raises(AnswerInvalid):
        list(items(server.wire(), "/list"))
    assert json.loads(page(1, cursor=None).content)["next"] is None


def test_nothing_is_tried_for_ever() -> None:
    server = Server(*[httpx.ConnectError("x")] * 20)
    with pytest.raises(Unreachable):
        server.wire().get("/x")
    assert len(server.asked) == Patience().attempts
    assert sum(server.pauses) < 10
