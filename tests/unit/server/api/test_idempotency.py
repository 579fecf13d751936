"""Writes that are sent twice."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from registry.catalog.answers import KEPT, LEASE, Answers, Claim, Kept
from registry.catalog.errors import IdempotencyInProgress, IdempotencyKeyReused
from registry.digests import Digest
from server.api import idempotency
from server.api.app import create_app
from tests.support.control import PREFIX, ControlWorld

KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
AT = "/tenants/bank_a/keys"
ASKED = Digest.of(b"a request")


def _keys(bench: ControlWorld) -> int:
    return len(bench.world.catalog.keys("bank_a"))


def test_the_same_request_gets_the_first_answer_again(bench: ControlWorld) -> None:
    first = bench.call("POST", AT, json={"role": "trainer"}, headers=KEY)
    count = _keys(bench)
    again = bench.call("POST", AT, json={"role": "trainer"}, headers=KEY)
    assert _keys(bench) == count
    assert (again.status_code, again.content) == (first.status_code, first.content) == (201, first.content)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


def test_headers_that_mean_something_come_again_too(bench: ControlWorld) -> None:
    bench.world.promoted(seed=1)
    bench.world.promoted(seed=2)
    at = "/tenants/bank_a/adapters/assistant/aliases/live/rollback"
    first, again = (bench.call("POST", at, headers=KEY) for _ in range(2))
    assert first.headers["etag"] == again.headers["etag"] == '"3"'
    assert bench.world.catalog.alias(_name(), "live").epoch == 3


def _name() -> Any:
    from tests.support.registries import NAME

    return NAME


def test_a_refusal_is_an_answer_too(bench: ControlWorld) -> None:
    body = {"id": "bank_a", "display_name": "Again"}
    first = bench.call("POST", "/tenants", "platform_admin", json=body, headers=KEY)
    again = bench.call("POST", "/tenants", "platform_admin", json=body, headers=KEY)
    assert (first.status_code, first.json()["code"]) == (409, "already_exists")
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize(
    "changed",
    [
        {"json": {"role": "inference"}},
        {"path": "/tenants/bank_a/keys?x=1"},
        {"path": "/tenants/bank_a/policies"},
        {"headers": KEY | {"If-Match": '"1"'}},
    ],
)
def test_another_request_under_the_same_key_is_refused(bench: ControlWorld, changed: dict[str, Any]) -> None:
    sent: dict[str, Any] = {"path": AT, "json": {"role": "trainer"}, "headers": KEY}
    assert bench.call("POST", sent.pop("path"), **sent).status_code == 201
    count = _keys(bench)
    sent = {"path": AT} | sent | changed
    answer = bench.call("POST", sent.pop("path"), **sent)
    if "x=1" in str(changed):  # refused before anybody asks for its key
        assert answer.json()["code"] == "invalid_input"
    else:
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert _keys(bench) == count


def test_keys_of_two_callers_do_not_meet(bench: ControlWorld) -> None:
    mine = bench.call("POST", AT, json={"role": "trainer"}, headers=KEY).json()
    theirs = bench.call("POST", AT, "platform_admin", json={"role": "trainer"}, headers=KEY).json()
    assert mine["key"]["id"] != theirs["key"]["id"]


def test_a_key_that_was_revoked_meanwhile_gets_nothing(bench: ControlWorld) -> None:
    made = bench.call("POST", AT, json={"role": "tenant_admin"}).json()
    headers = {"Authorization": f"Bearer {made['secret']}"} | KEY
    assert bench.client.post(PREFIX + AT, json={"role": "trainer"}, headers=headers).status_code == 201
    bench.world.catalog.revoke_key(made["key"]["id"], actor="test")
    assert bench.client.post(PREFIX + AT, json={"role": "trainer"}, headers=headers).status_code == 401


@pytest.mark.parametrize("key", ["", " ", "a b", "ä", "a" * 256, "a\x7f"])
def test_what_is_no_idempotency_key(shared: ControlWorld, key: str) -> None:
    headers = shared.headers("tenant_admin") | {"Idempotency-Key": key.encode("latin-1").decode("latin-1")}
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = shared.client.post(PREFIX + AT, json={"role": "trainer"}, headers=encoded)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")


def test_a_read_takes_no_key(shared: ControlWorld) -> None:
    first, again = (shared.call("GET", AT, headers=KEY) for _ in range(2))
    assert first.status_code == again.status_code == 200
    assert "idempotency-replayed" not in again.headers


def test_two_at_once_do_it_once(bench: ControlWorld) -> None:
    """The second waits for the first, and is told the same."""
    bench.secret("tenant_admin")
    count = _keys(bench)
    begun, go_on = threading.Event(), threading.Event()
    issue = bench.world.catalog.issue_key

    def slow(*args: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(10)
        return issue(*args, **options)

    bench.world.catalog.issue_key = slow  # type: ignore[method-assign]

    def ask() -> Any:
        return bench.call("POST", AT, json={"role": "trainer"}, headers=KEY)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask)
        assert begun.wait(10)
        second = pool.submit(ask)
        go_on.set()
        answers = {first.result().content, second.result().content}
    assert len(answers) == 1
    assert _keys(bench) == count + 1


def test_a_first_request_that_takes_long_is_a_conflict(
    bench: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "_PATIENCE", 0.0)
    key_id = bench.secret("tenant_admin").split("_")[1]
    asked: list[Digest] = []
    begin = Answers.begin

    def spying(self: Answers, actor: str, key: str, request: Digest) -> Any:
        asked.append(request)
        return begin(self, actor, key, request)

    monkeypatch.setattr(Answers, "begin", spying)
    bench.call("POST", AT, json={"role": "trainer"}, headers={"Idempotency-Key": "other"})
    bench.control.answers.begin(f"key:{key_id}", "pending", asked[0])
    answer = bench.call("POST", AT, json={"role": "trainer"}, headers={"Idempotency-Key": "pending"})
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_in_progress")


def test_a_failure_of_ours_may_be_tried_again(bench: ControlWorld) -> None:
    bench.secret("tenant_admin")
    issue, fail = bench.world.catalog.issue_key, [True]

    def failing(*args: Any, **options: Any) -> Any:
        if fail.pop() if fail else False:
            raise RuntimeError("a bug")
        return issue(*args, **options)

    bench.world.catalog.issue_key = failing  # type: ignore[method-assign]
    first = bench.call("POST", AT, json={"role": "trainer"}, headers=KEY)
    assert (first.status_code, first.json()["code"]) == (500, "internal")
    assert bench.call("POST", AT, json={"role": "trainer"}, headers=KEY).status_code == 201


def test_the_database_does_not_know_what_was_answered(bench: ControlWorld) -> None:
    """A new key's secret is in an answer; it must not be in a table, nor in the log beside it."""
    made = bench.call("POST", AT, json={"role": "trainer"}, headers=KEY).json()
    with sqlite3.connect(bench.world.file) as connection:
        dump = "\n".join(connection.iterdump())
    connection.close()
    assert KEY["Idempotency-Key"] in dump
    assert made["key"]["id"] in dump
    assert made["secret"] not in dump
    assert made["secret"].split("_", 2)[2][:20] not in dump


def test_answers_survive_a_restart_and_not_another_service_token(bench: ControlWorld) -> None:
    first = bench.call("POST", AT, json={"role": "trainer"}, headers=KEY)
    headers = bench.headers("tenant_admin") | KEY

    def asked(token: str) -> Any:
        client = TestClient(create_app(replace(bench.control, service_token=token)))
        return client.post(PREFIX + AT, json={"role": "trainer"}, headers=headers)

    assert asked(bench.control.service_token).content == first.content
    count = _keys(bench)
    answer = asked("another-service-token-0123456789abcdef")
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert _keys(bench) == count  # what was done is not done again


def _begin(answers: Answers, request: Digest = ASKED) -> Claim:
    claim = answers.begin("key:a", "k", request)
    assert isinstance(claim, Claim)
    return claim


def test_a_request_that_was_cut_off_is_carried_out_by_the_next(bench: ControlWorld) -> None:
    answers = bench.control.answers
    lost = _begin(answers)
    bench.clock.advance(LEASE.total_seconds() - 1)
    with pytest.raises(IdempotencyInProgress):
        answers.begin("key:a", "k", ASKED)
    with pytest.raises(IdempotencyKeyReused):
        answers.begin("key:a", "k", Digest.of(b"another"))
    bench.clock.advance(1)
    second = _begin(answers)
    # The first one comes back from the dead: the answer is the second one's to give.
    answers.finish(lost, status=200, headers="{}", body="late")
    answers.drop(lost)
    with pytest.raises(IdempotencyInProgress):
        answers.begin("key:a", "k", ASKED)
    answers.finish(second, status=201, headers="{}", body="done")
    assert answers.begin("key:a", "k", ASKED) == Kept(201, "{}", "done")
    answers.drop(second)  # and what was answered stays answered
    assert answers.begin("key:a", "k", ASKED) == Kept(201, "{}", "done")


def test_answers_are_kept_for_a_day(bench: ControlWorld) -> None:
    answers = bench.control.answers
    answers.finish(_begin(answers), status=200, headers="{}", body="x")
    bench.clock.advance(KEPT.total_seconds())
    assert isinstance(answers.begin("key:a", "k", ASKED), Kept)
    bench.clock.advance(1)
    _begin(answers, Digest.of(b"another"))
    bench.clock.advance(KEPT.total_seconds() + 1)
    answers.begin("key:b", "other", ASKED)
    with sqlite3.connect(bench.world.file) as connection:
        rows = connection.execute("SELECT actor FROM answers").fetchall()
    connection.close()
    assert rows == [("key:b",)]


def test_many_at_once_get_one_claim(bench: ControlWorld) -> None:
    barrier = threading.Barrier(6)

    def ask(_: int) -> object:
        barrier.wait()
        try:
            return bench.control.answers.begin("key:a", "k", ASKED)
        except IdempotencyInProgress:
            return None

    with ThreadPoolExecutor(6) as pool:
        found = [each for each in pool.map(ask, range(6)) if each is not None]
    assert len(found) == 1
    assert bench.call("GET", "/whoami").status_code == 200
