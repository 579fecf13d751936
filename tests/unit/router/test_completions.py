"""Every rule of a completion request, through the whole router on fakes."""

import asyncio
from typing import Any

import orjson
import pytest

from registry.digests import Digest
from registry.models import Canary, Role, Sampling
from registry.names import engine_name
from router.errors import EngineInterrupted, EngineTimeout, EngineUnavailable
from router.records import Record
from router.surfaces.salt import cache_salt
from router.testing import FakeAnswer, completion, honest
from tests.unit.router.conftest import SCHEMA
from tests.unit.router.driving import QUESTION, SALT, House, until

GOOD = '{"zeta":"z","amount":3}'


async def test_an_answer_names_nothing_of_the_engine(house: House, bank: str) -> None:
    response = await house.ask(bank)
    assert response.status == 200
    answer = response.json()
    assert set(answer) == {"id", "object", "created", "model", "choices", "usage"}
    assert answer["model"] == "assistant"
    assert answer["id"] == "chatcmpl-" + response.record.removeprefix("rec-")
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "fine"},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    version = house.scene.versions[0].version
    assert response.headers["x-tenon-version"] == version
    assert response.headers["x-tenon-engine"] == "engine-0"


async def test_what_the_engine_gets(house: House, bank: str) -> None:
    await house.ask(bank, {"user": "me", "metadata": {"a": "b"}, "seed": 4, "stop": "x", "store": False})
    (asked,) = house.engines.asked
    version, policy = house.scene.versions[0].version, next(iter(house.scene.policies))
    assert asked.url == "http://engine-0/v1/chat/completions"
    assert asked.body == {
        "model": engine_name(version),
        "messages": QUESTION["messages"],
        "stream": False,
        "n": 1,
        "cache_salt": cache_salt(SALT, "bank_a", policy, 1),
        "max_tokens": 256,
        "temperature": 0.0,
        "seed": 4,
        "stop": ["x"],
    }


async def test_the_schema_keeps_its_order_and_the_system_prompt_comes_first(house: House) -> None:
    version = house.scene.version("bank_a")
    house.scene.attest(version)
    policy = house.scene.policy("bank_a", SCHEMA, system_prompt="be exact")
    house.scene.route("bank_a", policy)
    secret = house.scene.key("bank_a")
    await house.publish()
    house.engines.script = honest(GOOD)
    assert (await house.ask(secret)).status == 200
    body = house.engines.asked[0].body
    assert body["messages"][0] == {"role": "system", "content": "be exact"}
    assert body["messages"][1:] == QUESTION["messages"]
    sent = body["response_format"]
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["strict"] is True
    assert list(sent["json_schema"]["schema"]["properties"]) == ["zeta", "amount"]


async def test_the_outcome_says_who_asked_and_who_answered(house: House) -> None:
    secret = house.scene.key("bank_a")
    house.scene.attest(house.scene.version("bank_a"))
    house.scene.route("bank_a", house.scene.policy("bank_a", intent_durable=True))
    await house.publish()
    body = orjson.dumps(QUESTION)
    response = await house.call(secret, body).done()
    intent, outcome = house.records()
    version, key = house.scene.versions[0], house.scene.keys[0]
    assert (intent.event, outcome.event, intent.seq, outcome.seq) == ("intent", "outcome", 0, 1)
    assert outcome.prev == Digest.of(intent.canonical())
    common = {"tenant": "bank_a", "key": key.id, "model": "assistant", "adapter": "desk", "alias": "live"}
    for record in (intent, outcome):
        found = record.model_dump()
        assert found | common == found
        assert (record.version, record.engine, record.boot) == (version.version, "engine-0", "boot-engine-0")
        assert record.attestation == house.scene.slots[0].attestation
        assert record.request == Digest.of(body)
        assert record.epoch == 1
    assert outcome.answer == Digest.of(response.body)
    assert (outcome.answer_of, outcome.status, outcome.code) == ("body", 200, None)
    assert (outcome.prompt_tokens, outcome.completion_tokens) == (7, 3)
    assert outcome.finish_reasons == ("stop",)
    assert intent.status is None
    assert (outcome.surface, outcome.engine_version) == (intent.surface, "0.32.0")
    assert outcome.started_at == outcome.at


async def test_without_the_policys_wish_there_is_no_intent(house: House, bank: str) -> None:
    await house.ask(bank)
    await house.ask(bank, {"stream": True})
    assert [record.event for record in house.records()] == ["outcome", "outcome"]


async def test_no_word_of_prompt_or_answer_is_recorded(house: House, bank: str) -> None:
    house.engines.script = honest("the secret answer")
    await house.ask(bank)
    await house.ask(bank, {"model": "Norvik secret"})
    text = (house.folder / "router-0" / "000000.jsonl").read_bytes()
    assert b"Norvik" not in text
    assert b"secret" not in text


async def test_without_a_key(house: House, bank: str) -> None:
    response = await house.ask(None)
    assert (response.status, response.code) == (401, "missing_api_key")
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "hint"}
    assert error["type"] == "authentication_error"
    assert "x-tenon-record" not in response.headers
    assert not house.engines.asked


async def test_an_unknown_a_revoked_and_a_trainers_key(house: House, bank: str) -> None:
    revoked = house.scene.key("bank_a", revoked=True)
    trainer = house.scene.key("bank_a", Role.TRAINER)
    admin = house.scene.key("bank_a", Role.TENANT_ADMIN)
    await house.publish()
    unknown = bank[:-1] + ("A" if bank[-1] != "A" else "B")
    answers = [await house.ask(secret) for secret in (unknown, revoked, "tn_short", "sk-other")]
    assert {(answer.status, answer.body) for answer in answers} == {(401, answers[0].body)}
    assert answers[0].code == "invalid_api_key"
    assert (await house.ask(trainer)).code == "role_forbidden"
    assert (await house.ask(admin)).status == 200


async def test_the_tenant_header_must_agree_and_tells_nothing(house: House, bank: str) -> None:
    house.scene.serve("retail_b")
    await house.publish()
    real = await house.ask(bank, headers={"X-Tenant-ID": "retail_b"})
    invented = await house.ask(bank, headers={"X-Tenant-ID": "nobody"})
    assert (real.status, real.code) == (403, "tenant_mismatch")
    assert (real.status, real.body) == (invented.status, invented.body)
    assert (await house.ask(bank, headers={"X-Tenant-ID": "bank_a"})).status == 200
    twice = await house.ask(bank, headers=[("X-Tenant-ID", "bank_a"), ("X-Tenant-ID", "bank_a")])
    assert (twice.status, twice.code) == (400, "duplicate_header")


async def test_foreign_and_engine_and_odd_names_are_one_404(house: House, bank: str) -> None:
    house.scene.serve("retail_b", model="cashier")
    await house.publish()
    version = house.scene.versions[0].version
    names = [
        "cashier",
        "nothing",
        engine_name(version),
        version,
        "../assistant",
        "/models/base",
        "retail_b/x",
    ]
    answers = [await house.ask(bank, {"model": name}) for name in names]
    assert {(answer.status, answer.body) for answer in answers} == {(404, answers[0].body)}
    assert answers[0].code == "model_not_found"
    assert not house.engines.asked
    assert house.outcome(answers[0]).model is None


@pytest.mark.parametrize("model", [None, "", 3, ["assistant"]])
async def test_a_missing_model_never_reaches_an_engine(house: House, bank: str, model: Any) -> None:
    response = await house.ask(bank, {"model": model})
    assert (response.status, response.code) == (400, "invalid_request")
    assert not house.engines.asked


async def test_two_tenants_get_their_own_adapters(house: House, bank: str) -> None:
    retail = house.scene.serve("retail_b")
    await house.publish()
    first, second = await house.ask(bank), await house.ask(retail)
    versions = [state.version for state in house.scene.versions]
    assert [first.headers["x-tenon-version"], second.headers["x-tenon-version"]] == versions
    assert [asked.body["model"] for asked in house.engines.asked] == [engine_name(v) for v in versions]
    salts = {asked.body["cache_salt"] for asked in house.engines.asked}
    assert len(salts) == 2


async def test_nobody_attested_is_an_error_not_the_base(house: House, bank: str) -> None:
    house.scene.slots.clear()
    await house.publish()
    response = await house.ask(bank)
    assert (response.status, response.code) == (503, "adapter_not_ready")
    assert not house.engines.asked
    assert house.outcome(response).adapter == "desk"


async def test_another_engine_is_asked_only_if_nothing_was_sent(house: House) -> None:
    house.scene.engine("engine-1", "http://engine-1")
    secret = house.scene.serve("bank_a")
    await house.publish()
    house.engines.down.add("http://engine-0")
    response = await house.ask(secret)
    assert response.headers["x-tenon-engine"] == "engine-1"
    mine = [record for record in house.records() if record.id == response.record]
    assert [(r.event, r.engine) for r in mine] == [("outcome", "engine-1")]

    house.engines.down.clear()

    def broken(_: dict[str, Any]) -> FakeAnswer:
        raise EngineUnavailable  # the connection broke after the request went out

    house.engines.scripts["http://engine-0"] = broken
    assert (await house.ask(secret)).status == 200  # nothing of an answer had come, so another may be asked
    house.engines.scripts["http://engine-1"] = broken
    assert (await house.ask(secret)).code == "engine_unavailable"

    house.engines.down.update(("http://engine-0", "http://engine-1"))
    assert (await house.ask(secret)).code == "engine_unavailable"


async def test_a_conversation_leaves_its_engine_when_that_is_busier_than_others(house: House) -> None:
    house.scene.engine("engine-1", "http://engine-1")
    secret = house.scene.serve("bank_a")
    await house.publish()
    hold = asyncio.Event()

    def slow(body: dict[str, Any]) -> FakeAnswer:
        return FakeAnswer(200, [orjson.dumps(completion(body))], hold=hold)

    house.engines.script = slow
    calls = [house.call(secret, QUESTION) for _ in range(3)]
    await until(lambda: len(house.engines.asked) == 3)
    first, second, third = (asked.url.split("/")[2] for asked in house.engines.asked)
    assert first == second != third  # of three, two are at most a quarter above the average, rounded up
    scrape = (await house.get("/metrics")).body
    assert f'tenon_engine_requests_in_flight{{engine="{third}"}} 1.0'.encode() in scrape
    hold.set()
    assert [(await call.done()).status for call in calls] == [200] * 3
    assert b'in_flight{engine="engine-1"} 0.0' in (await house.get("/metrics")).body
    assert all(answer.closed for answer in house.engines.answers)


@pytest.mark.parametrize(
    ("status", "code", "shown"),
    [
        (400, "request_rejected_by_engine", 400),
        (404, "engine_error", 502),
        (401, "engine_error", 502),
        (500, "engine_error", 502),
        (302, "engine_error", 502),
        (204, "engine_error", 502),
    ],
)
async def test_an_engines_error_is_reported_without_its_words(
    house: House, bank: str, status: int, code: str, shown: int
) -> None:
    house.engines.script = lambda _: FakeAnswer(status, [b'{"error":{"message":"/models/secret tenon-ab"}}'])
    response = await house.ask(bank)
    assert (response.status, response.code) == (shown, code)
    assert b"secret" not in response.body
    assert "x-tenon-version" not in response.headers
    outcome = house.outcome(response)
    assert (outcome.code, outcome.status, outcome.engine) == (code, shown, "engine-0")


BROKEN: list[tuple[Any, str]] = [
    ({"model": "base"}, "engine_answer_mismatch"),
    ({"model": None}, "engine_answer_mismatch"),
    ({"model": "assistant"}, "engine_answer_mismatch"),
    ({"object": "text_completion"}, "engine_error"),
    ({"choices": []}, "engine_error"),
    ({"choices": None}, "engine_error"),
    ({"choices": [{"index": 1, "message": {"content": "x"}, "finish_reason": "stop"}]}, "engine_error"),
    ({"choices": [{"index": 0, "message": {"content": 3}, "finish_reason": "stop"}]}, "engine_error"),
    ({"choices": [{"index": 0, "message": {}, "finish_reason": None}]}, "engine_interrupted"),
    ({"choices": [{"index": 0, "message": {}, "finish_reason": "abort"}]}, "engine_interrupted"),
    ({"error": {"message": "x"}}, "engine_error"),
]


@pytest.mark.parametrize(("changes", "code"), BROKEN)
async def test_a_wrong_answer_is_not_passed_on(house: House, bank: str, changes: Any, code: str) -> None:
    house.engines.script = lambda body: FakeAnswer(200, [orjson.dumps(completion(body, "LEAK", **changes))])
    response = await house.ask(bank)
    assert (response.status, response.code) == (502, code)
    assert b"LEAK" not in response.body
    assert house.outcome(response).code == code


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ([b"not json"], "engine_error"),
        ([b"[1]"], "engine_error"),
        ([b'{"mod', EngineInterrupted()], "engine_interrupted"),
        ([EngineTimeout()], "engine_timeout"),
        ([RuntimeError("a secret path")], "internal"),
    ],
)
async def test_a_broken_body(house: House, bank: str, pieces: Any, code: str) -> None:
    house.engines.script = lambda _: FakeAnswer(200, pieces)
    response = await house.ask(bank)
    assert response.code == code
    assert b"secret" not in response.body
    assert house.outcome(response).code == code


@pytest.mark.parametrize(
    ("content", "finish", "code"),
    [
        (GOOD, "stop", None),
        (GOOD, "length", "output_truncated"),
        (GOOD[:-3], "length", "output_truncated"),
        ("no json", "stop", "output_invalid"),
        ('{"zeta":"z","amount":"3"}', "stop", "output_invalid"),
        ('{"zeta":"z","amount":3,"amount":4}', "stop", "output_invalid"),
        (GOOD + GOOD, "stop", "output_invalid"),
        (None, "stop", "output_invalid"),
    ],
)
async def test_an_answer_must_satisfy_its_policy(
    house: House, strict: str, content: str | None, finish: str, code: str | None
) -> None:
    choice = {"index": 0, "message": {"content": content}, "finish_reason": finish}
    house.engines.script = lambda body: FakeAnswer(200, [orjson.dumps(completion(body, choices=[choice]))])
    response = await house.ask(strict)
    if code is None:
        assert response.json()["choices"][0]["message"]["content"] == content
        return
    assert response.code == code
    assert response.status == (422 if code == "output_truncated" else 502)
    assert house.outcome(response).finish_reasons == (finish,)


async def test_all_choices_are_validated(house: House, strict: str) -> None:
    choices = [
        {"index": i, "message": {"content": text}, "finish_reason": "stop"}
        for i, text in enumerate([GOOD, "x"])
    ]
    house.engines.script = lambda body: FakeAnswer(200, [orjson.dumps(completion(body, choices=choices))])
    assert (await house.ask(strict, {"n": 2, "temperature": 1})).code == "output_invalid"


async def test_a_cut_answer_is_normal_without_a_schema(house: House, bank: str) -> None:
    choice = {"index": 0, "message": {"content": "cut"}, "finish_reason": "length"}
    house.engines.script = lambda body: FakeAnswer(200, [orjson.dumps(completion(body, choices=[choice]))])
    response = await house.ask(bank)
    assert response.json()["choices"][0]["finish_reason"] == "length"


async def test_bounds_of_the_policy(house: House) -> None:
    version = house.scene.version("bank_a")
    house.scene.attest(version)
    sampling = Sampling(max_tokens=50, temperature=0.2, max_temperature=0.5)
    house.scene.route("bank_a", house.scene.policy("bank_a", sampling=sampling))
    secret = house.scene.key("bank_a")
    await house.publish()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"max_tokens": 51}, "max_tokens"),
        ({"max_completion_tokens": 51}, "max_completion_tokens"),
        ({"temperature": 0.6}, "temperature"),
    ]
    for changes, param in cases:
        response = await house.ask(secret, changes)
        assert (response.status, response.code) == (400, "sampling_out_of_bounds")
        assert response.json()["error"]["param"] == param
    assert (await house.ask(secret)).status == 200
    assert (await house.ask(secret, {"max_tokens": 9, "temperature": 0})).status == 200
    sent = [(asked.body["max_tokens"], asked.body["temperature"]) for asked in house.engines.asked]
    assert sent == [(50, 0.2), (9, 0)]


async def test_too_large_and_cut_off_bodies(house: House, bank: str) -> None:
    big = orjson.dumps({**QUESTION, "user": "x" * 30_000})
    announced = await house.call(bank, big, headers={"Content-Length": str(len(big))}).done()
    silent = await house.call(bank, [big[:15_000], big[15_000:]]).done()
    for response in (announced, silent):
        assert (response.status, response.code) == (413, "request_too_large")
    half = house.call(bank, [])
    half.hang_up()
    await half.done()
    assert half.response.status == 0
    assert house.records()[-1].code == "client_closed"


async def test_a_client_that_hangs_up_stops_the_engine(house: House, bank: str) -> None:
    house.engines.script = lambda body: FakeAnswer(
        200, [b"{", orjson.dumps(completion(body))], hold=asyncio.Event()
    )
    call = house.call(bank, QUESTION)
    await until(lambda: bool(house.engines.answers))
    call.hang_up()
    await call.done()
    assert call.response.status == 0
    assert house.engines.answers[0].closed
    last = house.records()[-1]
    assert (last.event, last.code, last.status, last.answer) == ("outcome", "client_closed", 499, None)


async def test_before_the_first_state_nothing_is_answered(house: House) -> None:
    response = await house.ask("tn_0000000000000000_" + "A" * 43)
    assert (response.status, response.code) == (503, "router_not_ready")


async def test_a_registry_silent_for_too_long_stops_answers(house: House, bank: str) -> None:
    house.now += 299
    assert (await house.ask(bank)).status == 200
    house.now += 2
    assert (await house.ask(bank)).code == "router_not_ready"


async def test_a_request_keeps_the_state_it_began_with(house: House, bank: str) -> None:
    hold = asyncio.Event()
    house.engines.script = lambda body: FakeAnswer(200, [orjson.dumps(completion(body))], hold=hold)
    old = house.scene.versions[0].version
    call = house.call(bank, QUESTION)
    await until(lambda: bool(house.engines.answers))
    house.scene.aliases.clear()
    house.scene.attest(house.scene.version("bank_a"))
    await house.publish()
    hold.set()
    response = await call.done()
    assert response.headers["x-tenon-version"] == old
    assert house.outcome(response).version == old
    assert (await house.ask(bank)).headers["x-tenon-version"] != old


async def test_milliseconds_are_measured(house: House, bank: str) -> None:
    def slow(body: dict[str, Any]) -> FakeAnswer:
        house.now += 0.25
        return FakeAnswer(200, [orjson.dumps(completion(body))])

    house.engines.script = slow
    outcome: Record = house.outcome(await house.ask(bank))
    assert outcome.milliseconds == 250


async def test_logprobs_only_when_asked(house: House, bank: str) -> None:
    tops = [{"token": "a", "logprob": -1.0, "bytes": [97], "engine_extra": 1}]
    logprobs = {
        "content": [{"token": "a", "logprob": -0.5, "bytes": [97], "token_id": 4, "top_logprobs": tops}]
    }
    choice = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop", "logprobs": logprobs}
    house.engines.script = lambda body: FakeAnswer(200, [orjson.dumps(completion(body, choices=[choice]))])
    silent = await house.ask(bank)
    assert silent.json()["choices"][0]["logprobs"] is None
    asked = await house.ask(bank, {"logprobs": True, "top_logprobs": 1})
    (token,) = asked.json()["choices"][0]["logprobs"]["content"]
    assert set(token) == {"token", "logprob", "bytes", "top_logprobs"}
    assert set(token["top_logprobs"][0]) == {"token", "logprob", "bytes"}


async def test_an_answer_that_cannot_be_sent_keeps_its_one_outcome(house: House, bank: str) -> None:
    def broken(_: bytes) -> None:
        raise OSError("the socket is gone")

    call = house.call(bank, QUESTION)
    call.observe = broken
    await call.done()
    assert [(record.event, record.status) for record in house.records()] == [("outcome", 200)]


async def test_a_schema_elsewhere_is_never_fetched(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Any] = []
    monkeypatch.setattr("urllib.request.urlopen", fetched.append)
    secret = house.scene.serve("bank_a", {"$ref": "http://127.0.0.1:1/schema.json"})
    await house.publish()
    house.engines.script = honest(GOOD)
    assert (await house.ask(secret)).code == "route_unusable"
    assert not fetched
    assert not house.engines.asked


async def test_a_conversation_keeps_its_version_and_the_record_says_whether_it_was_a_canary(
    house: House, bank: str
) -> None:
    stable = house.scene.aliases[0]
    canary = house.scene.version("bank_a")
    house.scene.attest(canary)
    canaries = (Canary(version=canary, percent=50),)
    house.scene.aliases = [stable.model_copy(update={"canaries": canaries, "epoch": 2})]
    await house.publish()
    seen: set[tuple[str, bool | None]] = set()
    for number in range(12):
        named = {"X-Conversation-Id": f"c{number}"}
        first = await house.ask(bank, headers=named)
        again = await house.ask(bank, {"user": "somebody else"}, headers=named)
        assert first.headers["x-tenon-version"] == again.headers["x-tenon-version"]
        outcome = house.outcome(first)
        assert outcome.version == first.headers["x-tenon-version"]
        assert house.engines.asked[-1].body["model"] == engine_name(Digest(outcome.version))
        seen.add((str(outcome.version), outcome.canary))
    assert seen == {(str(stable.version), False), (str(canary), True)}


async def test_what_was_refused_before_a_version_was_chosen_was_no_canary(house: House, bank: str) -> None:
    assert house.outcome(await house.ask(bank, {"model": "nothing"})).canary is None
