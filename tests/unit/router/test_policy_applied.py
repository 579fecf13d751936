"""What a policy makes of a question, and how its answers are judged."""

import json
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from registry.digests import Digest
from registry.models import ClientSchema, OnInvalid, Policy, Role, Sampling, Turn
from router import validation
from router.errors import (
    InvalidRequest,
    OutputInvalid,
    OutputRefused,
    OutputTruncated,
    ResponseFormatConflict,
    RouterError,
    SamplingOutOfBounds,
    UnsupportedParameter,
)
from router.headers import Headers
from router.policies import CompiledPolicy, compile_policy
from router.resolution import choose, resolve
from router.surfaces.again import again
from router.surfaces.chat.order import constrain
from router.surfaces.chat.question import parse
from router.surfaces.surface import Order
from router.tables import Principal, compile_tables
from router.testing import Scene
from tests.unit.router.driving import QUESTION, SALT

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCHEMA = {
    "type": "object",
    "properties": {"side": {"enum": ["buy", "sell"]}, "amount": {"type": "integer", "minimum": 0}},
    "required": ["side"],
    "additionalProperties": False,
}
NARROWER = SCHEMA | {"properties": SCHEMA["properties"] | {"side": {"const": "buy"}}}  # type: ignore[operator]
NARROW = {"client_schema": ClientSchema.NARROW}


def order(parts: dict[str, Any], **changes: Any) -> Order:
    """What the usual question with ``changes`` becomes under a policy of ``parts``."""
    scene = Scene()
    scene.engine()
    scene.serve("bank_a", **parts)
    tables = compile_tables(scene.snapshot())
    chosen = choose(Principal("bank_a", "k", Role.INFERENCE), "assistant", Headers([]), tables)
    asked = parse(json.dumps({**QUESTION, **changes}).encode(), most_choices=128)
    found = constrain(asked, resolve(chosen, tables, unit="u", now=NOW), SALT)
    for schema in found.schemas:
        schema.take(schema.look(schema.spelled))
    return found


def sent(parts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(order(parts, **changes).body)
    return body


def asking_for(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "mine", "schema": schema, "strict": True}}


def test_examples_stand_between_the_system_prompt_and_the_question() -> None:
    pack = (Turn(role="user", content="pay 3"), Turn(role="assistant", content="paid 3"))
    said = sent({"system_prompt": "You pay.", "prompt": pack})["messages"]
    assert [(one["role"], one["content"]) for one in said] == [
        ("system", "You pay."), ("user", "pay 3"), ("assistant", "paid 3"), ("user", "pay Norvik"),
    ]  # fmt: skip


def test_what_a_request_does_not_name_comes_from_the_policy() -> None:
    sampling = Sampling(max_tokens=7, temperature=0.5, top_p=0.9)
    usual = {"max_tokens": 7, "temperature": 0.5, "top_p": 0.9}
    assert usual.items() <= sent({"sampling": sampling}).items()
    assert usual.items() <= sent({"sampling": sampling}, n=2).items()
    assert sent({"sampling": sampling}, top_p=0.3)["top_p"] == 0.3
    assert sent({"sampling": sampling}, top_p=0.3, max_tokens=5)["top_p"] == 0.3
    assert sent({"sampling": sampling}, max_tokens=5)["max_tokens"] == 5
    assert "top_p" not in sent({})


@pytest.mark.parametrize(
    ("bounds", "changes", "param"),
    [
        ({"max_tokens": 5}, {"max_tokens": 6}, "max_tokens"),
        ({"max_temperature": 0.5}, {"temperature": 0.6}, "temperature"),
        ({"min_temperature": 0.2, "temperature": 0.3}, {"temperature": 0.1}, "temperature"),
        ({"max_top_p": 0.9, "top_p": 0.9}, {"top_p": 0.95}, "top_p"),
        ({"min_top_p": 0.5}, {"top_p": 0.4}, "top_p"),
        ({"max_penalty": 0.5}, {"presence_penalty": -0.6}, "presence_penalty"),
        ({"max_penalty": 0.5}, {"frequency_penalty": 0.6}, "frequency_penalty"),
        ({"max_choices": 2}, {"n": 3, "temperature": 1}, "n"),
        ({"logprobs": False}, {"logprobs": True}, "logprobs"),
        ({"max_top_logprobs": 2}, {"logprobs": True, "top_logprobs": 3}, "top_logprobs"),
    ],
)
def test_more_than_the_policy_allows_is_refused_and_named(
    bounds: dict[str, Any], changes: dict[str, Any], param: str
) -> None:
    with pytest.raises(SamplingOutOfBounds) as refused:
        order({"sampling": Sampling(**bounds)}, **changes)
    assert refused.value.facts["param"] == param


@pytest.mark.parametrize(
    ("bounds", "changes"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_top_p": 0.9, "top_p": 0.9}, {"top_p": 0.9}),
        ({"max_penalty": 0.5}, {"presence_penalty": -0.5, "frequency_penalty": 0.5}),
        ({"max_choices": 2}, {"n": 2, "temperature": 1}),
        ({"logprobs": False}, {"logprobs": False}),
        ({"max_top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
    ],
)
def test_all_that_the_policy_allows_is_passed_on(bounds: dict[str, Any], changes: dict[str, Any]) -> None:
    assert changes.items() <= sent({"sampling": Sampling(**bounds)}, **changes).items()


def test_a_policy_of_before_that_contradicts_itself_keeps_its_bound() -> None:
    assert sent({"sampling": Sampling(temperature=1.5, max_temperature=1)})["temperature"] == 1


def test_a_narrower_schema_takes_the_policy_s_place_and_both_judge() -> None:
    narrow = order({"schema": SCHEMA} | NARROW, response_format=asking_for(NARROWER))
    assert orjson.loads(narrow.body)["response_format"]["json_schema"]["schema"] == NARROWER
    assert narrow.own is not None
    validation.check(narrow.policy, '{"side":"buy"}', "stop", own=narrow.own)
    with pytest.raises(OutputInvalid):
        validation.check(narrow.policy, '{"side":"sell"}', "stop", own=narrow.own)
    with pytest.raises(OutputInvalid):  # satisfies the client's alone
        validation.check(narrow.policy, '{"side":"hold"}', "stop", own=lambda _: True)


def test_the_policy_s_own_schema_is_applied_as_its_author_wrote_it() -> None:
    turned = dict(reversed(SCHEMA.items()))
    found = order({"schema": SCHEMA} | NARROW, response_format=asking_for(turned))
    assert found.own is None
    assert b'"schema":' + orjson.dumps(SCHEMA) in found.body


def test_without_a_policy_s_schema_every_schema_that_engines_enforce_narrows() -> None:
    mine = order(NARROW, response_format=asking_for({"type": "integer"}))
    with pytest.raises(OutputInvalid):
        validation.check(mine.policy, '"three"', "stop", own=mine.own)
    with pytest.raises(OutputTruncated):
        validation.check(mine.policy, "3", "length", own=mine.own)
    with pytest.raises(UnsupportedParameter, match="cut the JSON"):
        order(NARROW, response_format=asking_for({"type": "integer"}), stop="x")


@pytest.mark.parametrize(
    ("parts", "schema", "error"),
    [
        ({"schema": SCHEMA} | NARROW, {"type": "object"}, ResponseFormatConflict),
        ({"schema": SCHEMA}, NARROWER, ResponseFormatConflict),
        ({}, NARROWER, UnsupportedParameter),
        (NARROW, {"oneOf": [{}]}, UnsupportedParameter),
        (NARROW, {"description": "x" * 20_000}, UnsupportedParameter),
        (NARROW, {"maximum": 2**70}, UnsupportedParameter),
        (NARROW, {"type": "sting"}, UnsupportedParameter),
        (NARROW, [], InvalidRequest),
        (NARROW, None, InvalidRequest),
    ],
)
def test_other_schemas_are_refused(parts: dict[str, Any], schema: Any, error: type[RouterError]) -> None:
    with pytest.raises(error) as refused:
        order(parts, response_format=asking_for(schema))
    assert refused.value.facts["param"] == "response_format"


def compiled(**parts: Any) -> CompiledPolicy:
    policy = Policy(tenant="bank_a", name="v1", json_schema=orjson.dumps(SCHEMA).decode(), **parts)
    return compile_policy(policy.identity(), policy)


@pytest.mark.parametrize(
    "content",
    [
        '{"side":"buy"}',
        '{"side":"buy","amount":18446744073709551616}',  # beyond 64 bits
        ' {\n"side" : "sell" , "amount": 3.0}\n',
        '{"side":"\\u0062uy"}',
    ],
)
def test_what_satisfies_the_schema_passes(content: str) -> None:
    validation.check(compiled(), content, "stop")


@pytest.mark.parametrize(
    "content",
    [
        None, "", "buy", '{"side":"hold"}', '{"side":"buy","amount":-1}', '{"side":"buy"} x',
        '{"side":"buy",}',
        '{"side":"hold","side":"buy"}', '{"side":"buy","side":"buy"}', '{"side": "hold", "side": "buy"}',
        '{"side":"buy","amount":NaN}', '{"side":"buy","amount":1e999}', '{"side":"\ud800"}',
        '{"side":"\\ud800"}', "[" * 100_000, '{"side":"buy","amount":' + "9" * 5_000 + ".5}",
    ],
)  # fmt: skip
def test_what_does_not_is_invalid(content: str | None) -> None:
    with pytest.raises(OutputInvalid):
        validation.check(compiled(), content, "stop")


def test_a_cut_answer_a_refusal_and_an_invalid_one_are_told_apart() -> None:
    policy, good = compiled(), '{"side":"buy"}'
    with pytest.raises(OutputTruncated):
        validation.check(policy, good, "length")
    with pytest.raises(OutputRefused):
        validation.check(policy, good, "content_filter")
    with pytest.raises(OutputRefused):
        validation.check(policy, None, "stop", refused=True)
    with pytest.raises(OutputRefused):
        validation.check(policy, "I", "length", refused=True)
    codes = {error.code for error in (OutputTruncated, OutputRefused, OutputInvalid)}
    assert codes == {"output_truncated", "output_refused", "output_invalid"}


def test_free_text_is_free() -> None:
    policy = Policy(tenant="bank_a", name="v1")
    free = compile_policy(policy.identity(), policy)
    for reason in ("stop", "length"):
        validation.check(free, "anything", reason)


def test_once_more_is_another_draw_within_the_policy() -> None:
    first = order(
        {"schema": SCHEMA, "on_invalid": OnInvalid.RETRY, "sampling": Sampling(max_temperature=0.2)}
    )
    second = orjson.loads(again(first).body)
    assert second.pop("temperature") == 0.2
    assert second.pop("seed") > 0
    before = orjson.loads(first.body)
    assert before.pop("temperature") == 0
    assert second == before
    warm = orjson.loads(again(order({}, temperature=0.9, seed=2**63 - 1)).body)
    assert warm["temperature"] == 0.9
    assert 0 <= warm["seed"] < 2**63 - 1


@pytest.mark.parametrize("seed", [0, 1, 6, 2**16, 2**32 - 1, -1, -(2**63)])
def test_no_choice_is_drawn_once_more_with_the_seed_of_another(seed: int) -> None:
    """vLLM seeds the i-th with seed + i; PyTorch's generator on a CPU knows the lowest 32 bits only."""
    once_more = orjson.loads(again(order({}, temperature=1, seed=seed)).body)["seed"]
    assert -(2**63) <= once_more < 2**63
    first, second = ({(start + index) % 2**32 for index in range(128)} for start in (seed, once_more))
    assert not first & second


def test_a_digest_that_is_not_the_policy_s_is_refused() -> None:
    with pytest.raises(Exception, match="digest does not match"):
        compile_policy(Digest.of(b"other"), Policy(tenant="bank_a", name="v1"))
