import json
from typing import Any

import pytest

from registry.errors import InvalidDocument, PolicyContradicts
from registry.models import OnInvalid, Policy, Sampling, Turn
from registry.policies import check_policy

SCHEMA = json.dumps({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]})


def policy(**parts: Any) -> Policy:
    return Policy(tenant="bank_a", name="v1", **parts)


def test_policies_of_before_keep_their_bytes_and_digests() -> None:
    assert policy().canonical() == (
        b'{"json_schema":null,"name":"v1","sampling":{"max_temperature":2,"max_tokens":256,"temperature":0},'
        b'"system_prompt":null,"tenant":"bank_a"}'
    )
    assert policy().identity() == "sha256:e60a6c2e831f391fd529d906cf193a08a9bede213e61f75740ef5030e824f1ea"


@pytest.mark.parametrize(
    "parts",
    [
        {"prompt": [{"role": "user", "content": "x"}]},
        {"tools": ["look_up"]},
        {"on_invalid": "retry"},
        {"client_schema": "narrow"},
        {"retention": "hmac"},
        {"intent_durable": True},
        {"sampling": {"max_choices": 2}},
        {"sampling": {"logprobs": False}},
    ],
)
def test_what_is_asked_for_is_part_of_the_identity_and_read_back(parts: dict[str, Any]) -> None:
    made = Policy.build({"tenant": "bank_a", "name": "v1"} | parts)
    assert made.identity() != policy().identity()
    again = Policy.parse(made.canonical())
    assert again == made
    written = made.model_dump(mode="json")
    name = next(iter(parts))
    assert written[name] == parts[name] or parts[name].items() <= written[name].items()


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"sampling": Sampling(temperature=1.5, max_temperature=1)}, "temperature is not"),
        ({"sampling": Sampling(min_temperature=0.2)}, "temperature is not"),
        ({"sampling": Sampling(min_top_p=0.9, max_top_p=0.5, top_p=0.9)}, "min_top_p is above"),
        ({"sampling": Sampling(max_top_p=0.9)}, "1 if none is named"),
        ({"prompt": (Turn(role="user", content="hello"),)}, "pairs"),
        ({"prompt": (Turn(role="assistant", content="a"), Turn(role="user", content="b"))}, "pairs"),
        (
            {"prompt": tuple(Turn(role=r, content="x" * 32_000) for r in ("user", "assistant", "user"))},
            "more than 65536",
        ),
        (
            {
                "json_schema": SCHEMA,
                "prompt": (Turn(role="user", content="a"), Turn(role="assistant", content='{"ok":1}')),
            },
            "example answer 1 does not satisfy",
        ),
        ({"tools": ("*", "look_up")}, "alone"),
        ({"tools": ("a", "a")}, "twice"),
        ({"tools": ("a",), "json_schema": SCHEMA}, "no tool is ever called"),
        ({"on_invalid": OnInvalid.RETRY}, "nothing to validate"),
    ],
)
def test_parts_that_cannot_all_be_kept_are_refused(parts: dict[str, Any], says: str) -> None:
    with pytest.raises(PolicyContradicts, match=says):
        check_policy(policy(**parts))


def test_all_contradictions_come_at_once() -> None:
    with pytest.raises(PolicyContradicts) as refused:
        check_policy(policy(tools=("a", "a"), on_invalid=OnInvalid.RETRY, sampling=Sampling(max_top_p=0.5)))
    assert len(refused.value.facts["faults"]) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "parts",
    [
        {
            "json_schema": SCHEMA,
            "prompt": (Turn(role="user", content="a"), Turn(role="assistant", content='{"ok":true}')),
            "on_invalid": OnInvalid.RETRY,
        },
        {"tools": ("*",), "on_invalid": OnInvalid.RETRY},
        {"sampling": Sampling(min_temperature=0.2, temperature=0.5, max_top_p=0.9, top_p=0.8)},
    ],
)
def test_policies_whose_parts_fit_are_accepted(parts: dict[str, Any]) -> None:
    check_policy(policy(**parts))


@pytest.mark.parametrize("tool", ["", "a b", "../x", "é", "a" * 65, "**"])
def test_a_tool_has_a_plain_name(tool: str) -> None:
    with pytest.raises(InvalidDocument):
        Policy.build({"tenant": "bank_a", "name": "v1", "tools": [tool]})
