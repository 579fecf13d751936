"""An engine's logprobs are passed on in OpenAI's form, and are no answer in any other."""

import json
from typing import Any

import orjson
import pytest

from registry.models import Policy
from router.errors import EngineFailed
from router.policies import compile_policy
from router.surfaces import every
from router.surfaces.surface import Order
from router.testing import FakeAnswer
from tests.unit.router.driving import QUESTION, House

TOP = {"token": "a", "logprob": -0.5, "bytes": [97]}
TOKEN = TOP | {"top_logprobs": [TOP, {"token": "b", "logprob": -2, "bytes": None}]}
LEGACY: dict[str, list[Any]] = {
    "text_offset": [0, 1],
    "token_logprobs": [None, -0.5],
    "tokens": ["a", "b"],
    "top_logprobs": [None, {"b": -0.5, "c": -2}],
}
DEEP: Any = 7
for _ in range(300):  # orjson reads more levels than it writes
    DEEP = [DEEP]
CHAT, COMPLETIONS = "chat", "completions"
SURFACES = {surface.name: surface for surface in every.SURFACES}
POLICY = Policy(tenant="bank_a", name="free")
ORDER = Order(
    body=b"",
    engine_name="tenon-x",
    public_name="assistant",
    choices=1,
    stream=False,
    include_usage=False,
    logprobs=True,
    policy=compile_policy(POLICY.identity(), POLICY),
)


def engine_says(name: str, logprobs: Any, *, stream: bool, model: str = "tenon-x") -> bytes:
    """An answer, or the one event of a stream, of which the one choice has these."""
    chat = "chat.completion.chunk" if stream else "chat.completion"
    said = {"content": "a"}
    choice = {"index": 0, "text": "a", "message": said, "delta": said, "finish_reason": "stop"}
    kind = chat if name == CHAT else "text_completion"
    return json.dumps({"object": kind, "model": model, "choices": [choice | {"logprobs": logprobs}]}).encode()


def client_reads(name: str, logprobs: Any, *, stream: bool) -> bytes:
    data = engine_says(name, logprobs, stream=stream)
    if not stream:
        return SURFACES[name].whole(data, ORDER, "a-1").body
    streamed = SURFACES[name].streamed(ORDER, "a-1")
    return streamed.accept(data) + streamed.finish()


GOOD: list[tuple[str, Any]] = [
    (CHAT, None),
    (CHAT, {"content": None}),
    (CHAT, {"content": []}),
    (CHAT, {"content": [TOKEN, TOP | {"logprob": None, "top_logprobs": []}]}),
    (COMPLETIONS, None),
    (COMPLETIONS, LEGACY),
    (COMPLETIONS, dict.fromkeys(LEGACY)),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("name", "logprobs"), GOOD)
def test_those_of_the_form_are_passed_on(name: str, logprobs: Any, stream: bool) -> None:
    assert b'"logprobs":%b' % orjson.dumps(logprobs) in client_reads(name, logprobs, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_more_is_left_out_and_what_is_less_is_none(stream: bool) -> None:
    more = {"content": [TOKEN | {"token_id": 4, "top_logprobs": [TOP | {"token_id": 4}]}], "okapi": 4}
    known = {"content": [TOKEN | {"top_logprobs": [TOP]}]}
    assert b'"logprobs":%b' % orjson.dumps(known) in client_reads(CHAT, more, stream=stream)
    less = {"token": "a", "logprob": -1.0}
    known = {"content": [less | {"bytes": None, "top_logprobs": []}]}
    assert b'"logprobs":%b' % orjson.dumps(known) in client_reads(CHAT, {"content": [less]}, stream=stream)
    found = client_reads(COMPLETIONS, LEGACY | {"okapi": 4}, stream=stream)
    assert b'"logprobs":%b' % orjson.dumps(LEGACY) in found


BAD: list[tuple[str, Any]] = [
    *((CHAT, bad) for bad in (7, "a", [TOKEN], {"content": 7}, {"content": {"a": 1}})),
    *((CHAT, {"content": [bad]}) for bad in (7, "a", None, [TOP])),
    *((CHAT, {"content": [TOKEN | {"top_logprobs": bad}]}) for bad in (7, 1.5, "a", {"a": 1}, [7], [None])),
    *((CHAT, {"content": [TOKEN | {"token": bad}]}) for bad in (7, None, ["a"], DEEP)),
    *((CHAT, {"content": [TOKEN | {"logprob": bad}]}) for bad in (True, "a", [1], DEEP)),
    *((CHAT, {"content": [TOKEN | {"bytes": bad}]}) for bad in (7, "a", ["a"], [1.5], [True], DEEP)),
    (CHAT, {"content": [TOKEN | {"top_logprobs": [TOP | {"bytes": DEEP}]}]}),
    *((COMPLETIONS, bad) for bad in (7, "a", [LEGACY])),
    *((COMPLETIONS, LEGACY | {name: bad}) for name in LEGACY for bad in (7, "a", {"a": 1}, [[1]], DEEP)),
    *((COMPLETIONS, LEGACY | {"text_offset": bad}) for bad in ([1.5], [None], ["a"], [True])),
    *((COMPLETIONS, LEGACY | {"token_logprobs": bad}) for bad in (["a"], [True])),
    *((COMPLETIONS, LEGACY | {"tokens": bad}) for bad in ([1], [None])),
    *((COMPLETIONS, LEGACY | {"top_logprobs": bad}) for bad in ([1], [{"a": "b"}], [{"a": DEEP}])),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("name", "logprobs"), BAD)
def test_those_of_no_form_are_no_answer(name: str, logprobs: Any, stream: bool) -> None:
    with pytest.raises(EngineFailed):
        client_reads(name, logprobs, stream=stream)


ASKED: list[tuple[str, str, dict[str, Any]]] = [
    (CHAT, "/v1/chat/completions", QUESTION | {"logprobs": True}),
    (COMPLETIONS, "/v1/completions", {"model": "assistant", "prompt": "x", "logprobs": 2}),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("name", "path", "question"), ASKED)
async def test_a_client_is_told_that_it_was_the_engine(
    house: House, bank: str, name: str, path: str, question: dict[str, Any], stream: bool
) -> None:
    def answer(body: dict[str, Any]) -> FakeAnswer:
        data = engine_says(name, 7, stream=stream, model=body["model"])
        return FakeAnswer(200, [b"data: %b\n\n" % data if stream else data])

    house.engines.script = answer
    found = await house.call(bank, question | {"stream": stream}, path=path).done()
    assert (found.status, found.code, house.outcome(found).code) == (502, "engine_error", "engine_error")
