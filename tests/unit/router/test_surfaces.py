"""What tools may say, what each surface accepts, and what never leaves a stream."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from registry.models import OnInvalid, Policy
from router.errors import InvalidRequest, UnsupportedParameter
from router.limits import Limits
from router.surfaces import embeddings
from router.surfaces.chat import question as chat
from router.surfaces.completions import question as completions
from router.surfaces.every import SURFACES
from router.surfaces.messages import question as messages
from router.surfaces.responses import question as responses
from router.testing import FakeAnswer, completion, honest
from tests.unit.router.driving import QUESTION, House, Response

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "http.md"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": CITY}} for name in ("weather", "map")]
GOOD = '{"city":"Kiel"}'
Calls = list[tuple[str, str]]


@pytest.fixture
async def free(house: House) -> str:
    """bank_a's key; its ``assistant`` may be offered any tool."""
    version = house.scene.version("bank_a")
    house.scene.attest(version)
    policy = Policy(tenant="bank_a", name="free", tools=("*",))
    house.scene.policies[policy.identity()] = policy
    house.scene.route("bank_a", policy.identity())
    secret = house.scene.key("bank_a")
    await house.publish()
    return secret


def calling(calls: Calls, finish: str = "tool_calls", content: str | None = None) -> Any:
    """An engine that calls tools, whole or in events of three characters."""

    def whole(body: dict[str, Any]) -> FakeAnswer:
        made = [
            {"id": "engine-1", "type": "function", "function": {"name": n, "arguments": a}} for n, a in calls
        ]
        message = {"role": "assistant", "content": content, "tool_calls": made}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return FakeAnswer(200, [orjson.dumps(completion(body, choices=[choice]))])

    def streamed(body: dict[str, Any]) -> FakeAnswer:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": content or ""}]
        for index, (name, arguments) in enumerate(calls):
            begun = {"index": index, "id": "engine-1", "type": "function", "function": {"name": name}}
            deltas.append({"tool_calls": [begun]})
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": arguments[at : at + 3]}}]}
                for at in range(0, len(arguments), 3)
            ]
        events = [event(body, delta) for delta in deltas]
        return FakeAnswer(200, [*events, event(body, {}, finish), b"data: [DONE]\n\n"])

    return lambda body: streamed(body) if body["stream"] else whole(body)


def event(body: Mapping[str, Any], delta: Mapping[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    value = {"object": "chat.completion.chunk", "created": 1, "model": body["model"], "choices": [choice]}
    return b"data: " + orjson.dumps(value) + b"\n\n"


def code_of(response: Response) -> str | None:
    """Of an error, whole or as the last event."""
    if response.status != 200:
        return response.code
    last = response.body.rstrip().rpartition(b"data: ")[2]
    if last == b"[DONE]":
        return None
    found = orjson.loads(last)
    error = found.get("error") if "error" in found else None
    return None if error is None else error["code"]


CALLS: list[tuple[dict[str, Any], Any, str | None]] = [
    ({}, calling([("weather", GOOD)]), None),
    ({}, calling([("weather", GOOD), ("map", GOOD)]), None),
    ({}, calling([("weather", GOOD)], "stop"), None),
    ({}, calling([], "stop", "no tool"), None),
    ({}, calling([], "length", "cut"), None),
    ({"tool_choice": "required"}, calling([("map", GOOD)]), None),
    ({}, calling([("weather", "12")]), "tool_call_invalid"),
    ({}, calling([("weather", "{}")]), "tool_call_invalid"),
    ({}, calling([("weather", '{"city":3}')]), "tool_call_invalid"),
    ({}, calling([("weather", '{"city":"a","city":"b"}')]), "tool_call_invalid"),
    ({}, calling([("weather", "{}"), ("map", GOOD)]), "tool_call_invalid"),
    ({}, calling([("shell", GOOD)]), "tool_call_invalid"),
    ({}, calling([("weather", GOOD)], "length"), "output_truncated"),
    ({}, calling([], "tool_calls", "x"), "engine_interrupted"),
    ({"tool_choice": "none"}, calling([("weather", GOOD)]), "tool_call_invalid"),
    ({"tool_choice": "required"}, calling([], "stop", "no"), "tool_call_invalid"),
    ({"tool_choice": "required"}, calling([], "length", "no"), "output_truncated"),
    (
        {"tool_choice": {"type": "function", "function": {"name": "map"}}},
        calling([("weather", GOOD)]),
        "tool_call_invalid",
    ),
    (
        {"parallel_tool_calls": False},
        calling([("weather", GOOD), ("map", GOOD)]),
        "tool_call_invalid",
    ),
    ({"tools": None}, calling([("weather", GOOD)]), "engine_interrupted"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("changes", "script", "code"), CALLS)
async def test_calls_are_what_was_asked_for(
    house: House, free: str, changes: Any, script: Any, code: str | None, stream: bool
) -> None:
    house.engines.script = script
    response = await house.ask(free, {"tools": TOOLS, **changes, "stream": stream})
    assert code_of(response) == code
    assert b"engine-1" not in response.body
    assert (b'"finish_reason":"tool_calls"' in response.body or code is None) == (code is None)
    assert house.outcome(response).code == code


async def test_an_invalid_call_is_never_followed_by_the_next(house: House, free: str) -> None:
    """A client may run a call as soon as another begins: so it must have been found valid by then."""
    house.engines.script = calling([("weather", "{}"), ("map", GOOD)])
    response = await house.ask(free, {"tools": TOOLS, "stream": True})
    assert b'"weather"' in response.body
    assert b'"map"' not in response.body
    flat = [{"type": "function", "name": name, "parameters": CITY} for name in ("weather", "map")]
    body = {"model": "assistant", "input": "x", "stream": True, "tools": flat}
    response = await house.call(free, body, path="/v1/responses").done()
    assert response.body.count(b"event: response.output_item.added") == 1
    assert b"arguments.done" not in response.body
    assert b"response.completed" not in response.body
    assert code_of(response) == "tool_call_invalid"


async def test_the_ends_of_every_surface_wait_for_the_record(house: House, free: str) -> None:
    asked: dict[str, tuple[dict[str, Any], bytes]] = {
        "/v1/responses": ({"model": "assistant", "input": "x"}, b"response.completed"),
        "/v1/messages": (
            {"model": "assistant", "max_tokens": 9, "messages": QUESTION["messages"]},
            b"message_stop",
        ),
    }
    for path, (body, end) in asked.items():
        seen: list[tuple[bytes, int]] = []
        call = house.call(free, {**body, "stream": True}, path=path)
        before = len(house.records())
        call.observe = lambda piece, seen=seen: seen.append((piece, len(house.records())))  # type: ignore[misc]
        response = await call.done()
        assert response.status == 200
        assert [records > before for piece, records in seen if end in piece] == [True]
        assert not any(end in piece for piece, records in seen if records == before)
        assert any(records == before for _, records in seen)


@pytest.mark.parametrize(
    "tool",
    [
        {"name": "a b"}, {"name": ""}, {"name": "x" * 65}, {"name": 3},
        {"name": "a", "parameters": {"type": "nope"}},
        {"name": "a", "parameters": {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1/s"}}}},
        {"name": "a", "parameters": {"not": {}}}, {"name": "a", "more": 1}, {"name": "a", "strict": "yes"},
    ],
)  # fmt: skip
async def test_tools_that_cannot_be_enforced_are_refused(house: House, free: str, tool: Any) -> None:
    response = await house.ask(free, {"tools": [{"type": "function", "function": tool}]})
    assert response.status == 400
    assert response.json()["error"]["param"].startswith("tools[0].function")
    assert not house.engines.asked


async def test_more_ways_to_ask_wrongly_for_tools(house: House, free: str) -> None:
    for changes in (
        {"tools": [*TOOLS, TOOLS[0]]},
        {"tools": [TOOLS[0]] * 129},
        {"tool_choice": "auto"},
        {"parallel_tool_calls": True},
        {"tools": TOOLS, "tool_choice": "sometimes"},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "shell"}}},
        {"tools": TOOLS, "response_format": {"type": "json_object"}},
    ):
        assert (await house.ask(free, changes)).status == 400
    assert not house.engines.asked


@pytest.mark.parametrize("whose", ["policy", "client"])
async def test_tools_that_may_not_be_called_go_with_a_schema(house: House, whose: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    allowed = {"schema": schema} if whose == "policy" else {"tools": ("*",)}
    secret = house.scene.serve("bank_a", **allowed)
    await house.publish()
    house.engines.script = honest('{"a":1}')
    asked = {"tools": TOOLS, **({"response_format": {"type": "json_object"}} if whose == "client" else {})}
    assert (await house.ask(secret, asked)).code == "unsupported_parameter"
    assert (await house.ask(secret, {**asked, "tool_choice": "required"})).code == "unsupported_parameter"
    answer = await house.ask(secret, {**asked, "tool_choice": "none"})
    assert answer.status == 200
    assert answer.json()["choices"][0]["message"]["content"] == '{"a":1}'
    (sent,) = house.engines.asked
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(sent.body)
    assert sent.body["response_format"]


def test_history_keeps_calls_and_results() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": GOOD}}
    result = {"role": "tool", "tool_call_id": "c1", "content": "rain"}
    history = [{"role": "assistant", "tool_calls": [call], "content": None}, result]
    found = chat.parse(orjson.dumps({"model": "m", "messages": history}), most_choices=1)
    assert list(found.messages) == [{"role": "assistant", "tool_calls": [call]}, result]
    for broken in ("12", "{", '{"a":1,"a":2}'):
        bad = {**call, "function": {"name": "weather", "arguments": broken}}
        body = orjson.dumps({"model": "m", "messages": [{"role": "assistant", "tool_calls": [bad]}]})
        with pytest.raises(InvalidRequest):
            chat.parse(body, most_choices=1)


LISTS: dict[str, tuple[Mapping[str, Any], tuple[str, ...]]] = {
    "chat": (chat.FIELDS, chat.IGNORED),
    "completions": (completions.FIELDS, completions.IGNORED),
    "embeddings": (embeddings.FIELDS, embeddings.IGNORED),
    "responses": (responses.FIELDS, responses.IGNORED),
    "messages": (messages.FIELDS, messages.IGNORED),
}
LEAST: dict[str, dict[str, Any]] = {
    "chat": {"messages": QUESTION["messages"]},
    "completions": {"prompt": "x"},
    "embeddings": {"input": "x"},
    "responses": {"input": "x"},
    "messages": {"messages": QUESTION["messages"], "max_tokens": 1},
}


def test_the_page_lists_the_fields_of_every_surface() -> None:
    rows = dict(re.findall(r"^\| `POST (/v1/\S+)` \| (.*) \|$", PAGE.read_text("utf-8"), re.MULTILINE))
    for surface in SURFACES:
        checks, ignored = LISTS[surface.name]
        used, _, unused = rows[surface.path].partition(" | ")
        assert re.findall(r"`(\w+)`", used) == [name for name in checks if name not in ignored]
        assert re.findall(r"`(\w+)`", unused) == list(ignored)


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_what_is_not_listed_is_refused_by_name(surface: Any) -> None:
    for field in (
        "cache_salt",
        "lora_path",
        "prompt_logprobs",
        "kv_transfer_params",
        "vllm_xargs",
        "priority",
    ):
        body = {"model": "m", **LEAST[surface.name], field: 1}
        with pytest.raises(UnsupportedParameter) as caught:
            surface.parse(orjson.dumps(body), Limits())
        assert caught.value.facts["param"] == field
        surface.parse(orjson.dumps({**body, field: None}), Limits())


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_a_key_given_twice_is_refused_however_it_is_spelled(surface: Any) -> None:
    inner = orjson.dumps(LEAST[surface.name])[1:-1]
    for twice in (b'"model":"m","model":"n",', b'"model":"m", "m\\u006fdel":"n",'):
        with pytest.raises(InvalidRequest):
            surface.parse(b"{" + twice + inner + b"}", Limits())


CALL = {"type": "function_call", "name": "b", "call_id": "c"}
HUGE = b"1" + b"0" * 30


@pytest.mark.parametrize("stream", [b"true", b"false"])
@pytest.mark.parametrize(
    "field",
    [
        b'"metadata":{"a":%b}' % HUGE,
        b'"metadata":{"a":"\\ud800"}',
        b'"text":{"format":{"type":"text","name":%b}}' % HUGE,
        b'"text":{"format":{"type":"json_schema","name":"a","schema":{"maximum":%b}}}' % HUGE,
    ],
)
async def test_what_no_answer_can_repeat_is_refused_before_an_engine_is_asked(
    house: House, bank: str, stream: bytes, field: bytes
) -> None:
    body = b'{"model":"assistant","input":"x","stream":%b,%b}' % (stream, field)
    found = await house.call(bank, body, path="/v1/responses").done()
    assert (found.status, found.code) == (400, "invalid_request")
    assert not house.engines.asked


def test_a_call_of_an_earlier_turn_is_passed_on() -> None:
    parsed = responses.parse(orjson.dumps({"model": "m", "input": [dict(CALL, arguments="{}")]}))
    assert parsed.messages[0]["tool_calls"][0]["function"]["arguments"] == "{}"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": []}), ("/v1/completions", {"prompt": ""}),
        ("/v1/completions", {"prompt": [""]}),
        ("/v1/completions", {"prompt": [1, "a"]}), ("/v1/completions", {"prompt": [-1]}),
        ("/v1/completions", {"prompt": [[1], [[2]]]}), ("/v1/completions", {"prompt": ["a"] * 9}),
        ("/v1/completions", {"prompt": ["a"] * 5, "n": 2}), ("/v1/completions", {"prompt": [True]}),
        ("/v1/embeddings", {"input": ["a"] * 2049}),
        ("/v1/embeddings", {"input": "a", "encoding_format": "int8"}),
        ("/v1/responses", {"input": []}), ("/v1/responses", {"input": ""}),
        ("/v1/responses", {"input": [dict(CALL, arguments="no JSON")]}),
        ("/v1/responses", {"input": [dict(CALL, arguments="[]")]}),
        ("/v1/responses", {"input": "x", "metadata": {"a": 1}}),
        ("/v1/responses", {"input": "x", "metadata": {"a": {}}}),
        ("/v1/responses", {"input": "x", "metadata": {"a" * 65: "b"}}),
        ("/v1/responses", {"input": "x", "metadata": {"a": "b" * 513}}),
        ("/v1/responses", {"input": "x", "metadata": dict.fromkeys("abcdefghijklmnopq", "")}),
        ("/v1/responses", {"input": "x", "text": {"format": {"type": "text", "name": 1}}}),
        ("/v1/responses", {"input": [{"role": "robot", "content": "x"}]}),
        ("/v1/responses", {"input": [{"type": "function_call", "name": "b", "arguments": "[]"}]}),
        ("/v1/messages", {"messages": [{"role": "system", "content": "x"}], "max_tokens": 1}),
        ("/v1/messages", {"messages": [{"role": "user", "content": []}], "max_tokens": 1}),
        ("/v1/messages", {"messages": QUESTION["messages"]}),
        ("/v1/messages", {"messages": QUESTION["messages"], "max_tokens": 1, "temperature": 1.5}),
    ],
)  # fmt: skip
async def test_bad_values(house: House, free: str, path: str, body: dict[str, Any]) -> None:
    response = await house.call(free, {"model": "assistant", **body}, path=path).done()
    assert response.status == 400
    assert not house.engines.asked


async def test_an_image_that_an_engine_does_not_take_is_named(house: House, free: str) -> None:
    """Its own words stay behind, and most bases take text only."""
    house.engines.script = lambda _: FakeAnswer(400, [b"{}"])
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    told = []
    for part in (picture, {"type": "text", "text": "hi"}):
        body = {"model": "assistant", "messages": [{"role": "user", "content": [part]}]}
        error = (await house.call(free, body).done()).json()["error"]
        assert error["code"] == "request_rejected_by_engine"
        told.append("image" in error["message"])
    assert told == [True, False]


async def test_every_surface_sends_its_own_salt_and_name(house: House, free: str) -> None:
    house.engines.script = lambda _: FakeAnswer(400, [b"{}"])
    for surface in SURFACES:
        body = {"model": "assistant", **LEAST[surface.name]}
        response = await house.call(free, body, path=surface.path).done()
        assert (response.status, "request_rejected_by_engine" in response.body.decode()) == (400, True)
        asked = house.engines.asked[-1]
        assert asked.url.endswith(surface.upstream)
        assert asked.body["model"].startswith("tenon-")
    assert len({asked.body["cache_salt"] for asked in house.engines.asked}) == 1


async def test_an_invalid_call_is_retried_as_any_invalid_answer(house: House) -> None:
    version = house.scene.version("bank_a")
    house.scene.attest(version)
    policy = Policy(tenant="bank_a", name="free", tools=("*",), on_invalid=OnInvalid.RETRY)
    house.scene.policies[policy.identity()] = policy
    house.scene.route("bank_a", policy.identity())
    secret = house.scene.key("bank_a")
    await house.publish()
    answers = [calling([("weather", arguments)]) for arguments in ("12", GOOD)]

    def in_turn(body: dict[str, Any]) -> FakeAnswer:
        made: FakeAnswer = answers.pop(0)(body)
        return made

    house.engines.script = in_turn
    response = await house.ask(secret, {"tools": TOOLS})
    assert response.json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == GOOD
    assert len(house.engines.asked) == 2


ANYTHING: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
]


@pytest.mark.parametrize(
    "arguments",
    ['{"a":123456789012345678901234567890}', '{"a":1.0,"b":1e2}', '{ "a" : [1, 2],\n"b": "\\u00e9" }'],
)
async def test_a_message_s_arguments_are_the_model_s_own(house: House, free: str, arguments: str) -> None:
    house.engines.script = calling([("f", arguments)])
    body = {"model": "assistant", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    answer = await house.call(free, {**body, "tools": tools}, path="/v1/messages").done()
    assert answer.status == 200
    assert arguments.encode() in answer.body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "arguments", ['{"a":"\\ud800"}', '{"\\udfff":1}', '{"a":NaN}', '{"a":1e999}', "[" * 3000]
)
async def test_arguments_that_nobody_can_be_given_are_invalid(
    house: House, free: str, arguments: str, stream: bool
) -> None:
    house.engines.script = calling([("f", arguments)])
    response = await house.ask(free, {"tools": ANYTHING, "stream": stream})
    assert code_of(response) == "tool_call_invalid"
    body = {"model": "assistant", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    answer = await house.call(free, {**body, "tools": tools, "stream": stream}, path="/v1/messages").done()
    assert b'"tool_call_invalid"' in answer.body
    assert b"tool_use" not in answer.body or stream
    assert b"message_stop" not in answer.body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "kind"), [("chat/completions", "chat.completion"), ("completions", "text_completion")]
)
async def test_what_a_filter_of_the_engine_stopped_was_refused(
    house: House, free: str, path: str, kind: str, stream: bool
) -> None:
    said = {"content": "a"}
    choice = {"index": 0, "text": "a", "message": said, "delta": said, "finish_reason": "content_filter"}
    chunked = ".chunk" if stream and kind == "chat.completion" else ""

    def filtered(body: dict[str, Any]) -> FakeAnswer:
        data = orjson.dumps({"object": kind + chunked, "model": body["model"], "choices": [choice]})
        return FakeAnswer(200, [b"data: %b\n\n" % data if stream else data])

    house.engines.script = filtered
    question = {"model": "assistant", "stream": stream}
    question |= {"prompt": "x"} if path == "completions" else {"messages": QUESTION["messages"]}
    found = await house.call(free, question, path=f"/v1/{path}").done()
    assert (found.status, found.code, house.outcome(found).code) == (422, "output_refused", "output_refused")
