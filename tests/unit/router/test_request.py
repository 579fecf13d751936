"""The allow-list of request fields, and what a policy does to response_format."""

import json
import math
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from registry import canonical
from registry.models import Role
from router.errors import InvalidRequest, ResponseFormatConflict, UnsupportedParameter
from router.headers import Headers
from router.limits import Limits
from router.resolution import choose, resolve
from router.surfaces.chat.order import constrain
from router.surfaces.chat.question import parse
from router.surfaces.every import SURFACES
from router.surfaces.salt import cache_salt
from router.surfaces.surface import Order, Question
from router.tables import Principal, compile_tables
from router.testing import Scene
from tests.unit.router.conftest import SCHEMA
from tests.unit.router.driving import QUESTION, SALT

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def question(**changes: Any) -> Question:
    return parse(orjson.dumps({**QUESTION, **changes}), most_choices=8)


def read(name: str, body: dict[str, Any]) -> Question:
    surface = next(surface for surface in SURFACES if surface.name == name)
    return surface.parse(orjson.dumps(body), Limits())


def completions(body: dict[str, Any]) -> Question:
    return read("completions", body)


def order(schema: dict[str, Any] | None, **changes: Any) -> Order:
    scene = Scene()
    scene.engine()
    scene.serve("bank_a", schema)
    tables = compile_tables(scene.snapshot())
    chosen = choose(Principal("bank_a", "k", Role.INFERENCE), "assistant", Headers([]), tables)
    return constrain(question(**changes), resolve(chosen, tables, unit="u", now=NOW), SALT)


@pytest.mark.parametrize(
    "field",
    [
        "prompt_logprobs", "echo", "cache_salt", "lora_path", "lora_request", "chat_template",
        "chat_template_kwargs", "structured_outputs", "guided_json", "guided_regex", "kv_transfer_params",
        "add_special_tokens", "add_generation_prompt", "priority", "functions", "function_call",
        "logit_bias", "min_tokens", "ignore_eos", "return_token_ids", "documents", "mm_processor_kwargs",
        "logits_processors", "vllm_xargs", "request_id", "best_of", "top_k", "model_name", "MODEL", "",
    ],
)  # fmt: skip
def test_fields_that_are_not_listed_are_named(field: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        question(**{field: 1})
    assert caught.value.facts["param"] == field
    assert field not in question(**{field: None}).options  # null is "not given", as some clients write it


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{", b'{"model":"a","model":"b"}', b'{"a":{"b":1,"b":2}}', b"\xff",
        b'{"n":NaN}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_bodies_that_are_not_one_json_object(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(body, most_choices=8)


def test_a_nested_duplicate_key_is_refused() -> None:
    body = b'{"model":"a","messages":[{"role":"user","content":"x","content":"y"}]}'
    with pytest.raises(InvalidRequest):
        parse(body, most_choices=8)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("temperature", [-0.1, 2.1, "0", True, [1]]),
        ("top_p", [0, 1.1, "1"]),
        ("max_tokens", [0, -1, 1.5, True, "5"]),
        ("n", [0, 9, True, 1.0]),
        ("stream", [1, "true"]),
        ("stop", [3, [""], ["a"] * 5, [1]]),
        ("seed", [1.5, "1"]),
        ("logprobs", [1]),
        ("top_logprobs", [21, -1]),
        ("presence_penalty", [3]),
        ("frequency_penalty", [-3]),
        ("stream_options", [3, {"include_usage": 1}]),
        ("response_format", ["text", {"type": "grammar"}, {}]),
        (
            "messages",
            [
                [],
                "hi",
                [3],
                [{"role": "tool", "content": "x"}],
                [{"role": "robot", "content": "x"}],
                [{"role": "user"}],
            ],
        ),
        ("user", [3]),
        ("metadata", ["x"]),
    ],
)
def test_values_out_of_range(field: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(InvalidRequest):
            order(None, **{"stream": field == "stream_options"} | {field: value})


def test_infinity_in_disguise_and_half_surrogates() -> None:
    with pytest.raises(InvalidRequest):
        parse(b'{"model":"a","messages":[{"role":"user","content":"x"}],"temperature":1e999}', most_choices=8)
    for text in (b'"\\ud800"', b'[{"type":"text","text":"\\udfff"}]'):
        with pytest.raises(InvalidRequest):
            parse(b'{"model":"a","messages":[{"role":"user","content":' + text + b"}]}", most_choices=8)
    assert math.isinf(float("1e999"))


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://169.254.169.254"}}]},
        {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": 1}]},
        {"role": "assistant", "content": "x", "tool_calls": [{}]},
        {"role": "user", "content": "x", "tool_call_id": "1"},
    ],
)
def test_messages_carry_nothing_that_is_not_listed(message: Any) -> None:
    with pytest.raises((UnsupportedParameter, InvalidRequest)):
        question(messages=[message])


def test_text_parts_are_joined_and_nulls_mean_absent() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    message = {"role": "user", "content": parts, "name": "me", "tool_calls": None}
    found = question(messages=[message], temperature=None, stop=None, response_format=None, n=None)
    assert found.messages == ({"role": "user", "content": "ab", "name": "me"},)
    assert (found.temperature, found.choices, found.options) == (None, 1, {})


def test_contradictions() -> None:
    for changes in (
        {"max_tokens": 1, "max_completion_tokens": 2},
        {"stream_options": {"include_usage": True}},
        {"top_logprobs": 2},
        {"n": 2},  # at the policy's temperature of 0
    ):
        with pytest.raises(InvalidRequest):
            order(None, **changes)
    assert question(max_tokens=2, max_completion_tokens=2).max_tokens == 2


def sent(found: Order) -> Any:
    return orjson.loads(found.body).get("response_format")


@pytest.mark.parametrize("piece", ["[]", '{"a": 1}', "1"])
def test_a_body_of_countless_values_is_refused_unread(piece: str) -> None:
    body = f'{{"messages": [{", ".join([piece] * 500_000)}]}}'.encode()
    with pytest.raises(InvalidRequest, match="too many values"):
        parse(body, most_choices=1)
    long = {"model": "assistant", "messages": [{"role": "user", "content": "well, and so on [1]. " * 50_000}]}
    assert parse(json.dumps(long).encode(), most_choices=1).model == "assistant"


def said(text: str) -> bytes:
    """In a body that is not compact."""
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()


def calling(arguments: str, times: int = 1) -> list[Any]:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return [{"role": "assistant", "tool_calls": [call] * times}]


BEGUN = b'{"model":"m", "messages":[{"role":"user","content":"x"}], "metadata":'
HISTORY = [
    *calling('{"city": "Basel", "days": [1, 2]}'),
    {"role": "tool", "tool_call_id": "c", "content": "rain, then sun"},
    {"role": "user", "content": [{"type": "text", "text": "and then?"}]},
]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(BEGUN + b"{" + b",".join(b'"%d":1' % i for i in range(60_000)) + b"}}", id="pairs"),
        pytest.param(BEGUN + b'{"a":[' + b",".join([b"1"] * 200_000) + b"]}}", id="numbers"),
        pytest.param(BEGUN + b'{"a":[' + b",".join([b"{}"] * 30_000) + b"]}}", id="objects"),
        pytest.param(BEGUN + b'{"a":[' + b",".join([b'""'] * 120_000) + b"]}}", id="texts"),
        pytest.param(
            BEGUN
            + b'{"a":['
            + b",".join([b"{" + b",".join(b'"%d":1' % i for i in range(600)) + b"}"] * 90)
            + b"]}}",
            id="pairs-of-many",
        ),
        pytest.param(
            BEGUN + b'{"a":[' + b",".join([b"[" + b",".join([b"1"] * 20) + b"]"] * 8_000) + b"]}}",
            id="numbers-of-many",
        ),
        pytest.param(
            orjson.dumps({"model": "m", "messages": [{"role": "user", "content": [{}]}] * 4_000}), id="parts"
        ),
    ],
)
def test_values_are_counted_outside_of_texts(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="too many values"):
        parse(body, most_choices=1)


@pytest.mark.parametrize(
    "text",
    [
        'if (a[0], b[1]) { f("x", \'\\\\\', "\\n"); }\n' * 50_000,
        '{"a": [1, 2, {"b": ""}], "c": "\\\\"},' * 60_000,
        "\\" * 400_000,
        '"' * 400_000,
    ],
    ids=["code", "json", "backslashes", "quotes"],
)
def test_a_long_text_may_hold_what_it_likes(text: str) -> None:
    assert parse(said(text), most_choices=1).messages[0]["content"] == text
    assert parse(orjson.dumps(orjson.loads(said(text))), most_choices=1).messages[0]["content"] == text


def test_what_clients_really_send_is_within_the_bounds() -> None:
    long = {"model": "m", "messages": HISTORY * 1_000}
    assert len(parse(json.dumps(long).encode(), most_choices=1).messages) == 3_000
    ids = completions({"model": "m", "prompt": list(range(131_072))})
    assert ids.prompts == [list(range(131_072))]
    parameters = {f"p{i}": {"type": "string", "description": "a, b"} for i in range(30)}
    schema = {"type": "object", "properties": parameters, "required": list(parameters)}
    tools = [{"type": "function", "function": {"name": f"f{i}", "parameters": schema}} for i in range(128)]
    assert question(tools=tools).tools is not None


def test_what_is_behind_a_key_given_twice_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0
    unique = canonical.unique

    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal seen
        seen += 1
        return unique(pairs)

    monkeypatch.setattr(canonical, "unique", noted)
    hidden = f'{{"x":[{",".join(["{}"] * 60_000)}], "x":1}}'
    with pytest.raises(InvalidRequest, match="names a key twice"):
        parse(BEGUN + hidden.encode() + b"}", most_choices=1)
    with pytest.raises(InvalidRequest, match="must be the JSON text of an object"):
        parse(orjson.dumps({"model": "m", "messages": calling(hidden)}), most_choices=1)
    assert seen == 20_000


def test_the_arguments_of_all_calls_together_are_bounded() -> None:
    lists = f'{{"a":[{",".join(["[]"] * 6_000)}]}}'
    assert parse(orjson.dumps({"model": "m", "messages": calling(lists)}), most_choices=1).messages
    items = [{"type": "function_call", "call_id": "c", "name": "f", "arguments": lists}] * 20
    for surface, body in (("chat", {"messages": calling(lists, 20)}), ("responses", {"input": items})):
        with pytest.raises(InvalidRequest, match="calls hold too many values"):
            read(surface, {"model": "m", **body})


@pytest.mark.parametrize("arguments", ["12", "{", '{"a":1, "a":2}', '{"a":NaN}', '{"a":1e999}', "[" * 3_000])
def test_arguments_are_an_object_that_names_a_key_once(arguments: str) -> None:
    with pytest.raises(InvalidRequest, match="must be the JSON text of an object"):
        question(messages=calling(arguments))


def asks(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "mine", "schema": schema}}


def test_the_policys_schema_is_applied_whatever_was_compatible() -> None:
    applied = {"type": "json_schema", "json_schema": {"name": "house", "schema": SCHEMA, "strict": True}}
    reordered = dict(reversed(list(SCHEMA.items())))
    for asked in (None, {"type": "text"}, {"type": "json_object"}, asks(SCHEMA), asks(reordered)):
        assert sent(order(SCHEMA, response_format=asked)) == applied


def test_another_schema_conflicts() -> None:
    for schema in ({"type": "object"}, {}, {**SCHEMA, "additionalProperties": 0}):
        with pytest.raises(ResponseFormatConflict):
            order(SCHEMA, response_format=asks(schema))
    for nothing in (None, True):
        with pytest.raises(InvalidRequest, match="must be an object"):
            order(SCHEMA, response_format=asks(nothing))
    with pytest.raises(InvalidRequest, match="must be an object"):
        order(SCHEMA, response_format={"type": "json_schema"})


def test_without_a_policy_schema() -> None:
    assert sent(order(None)) is None
    assert sent(order(None, response_format={"type": "text"})) is None
    assert sent(order(None, response_format={"type": "json_object"})) == {"type": "json_object"}
    with pytest.raises(UnsupportedParameter):
        order(None, response_format=asks(SCHEMA))


def test_stop_would_cut_constrained_json() -> None:
    with pytest.raises(UnsupportedParameter):
        order(SCHEMA, stop=["}"])


def test_the_salt_separates_tenants_policies_and_epochs() -> None:
    found = {
        cache_salt(secret, tenant, policy, epoch)
        for secret in (SALT, b"x" * 32)
        for tenant in ("a", "ab")
        for policy in ("sha256:1", "b")
        for epoch in (1, 11)
    }
    assert len(found) == 16
