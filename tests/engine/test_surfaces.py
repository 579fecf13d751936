"""Every endpoint of the router before a real vLLM."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from registry.models import Policy
from registry.names import engine_name
from router.limits import Timeouts
from router.upstream import EnginePool
from server.demo.build_base import SHIPPED_BASE
from server.demo.corpus import tool_row
from tests.engine.conftest import RealAdapter, RealEngine, write_lora
from tests.unit.router.driving import House, Response
from trainer.learning.fingerprint import make_fingerprint

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),  # the first test also waits for the engine's start
    pytest.mark.xdist_group("engine"),  # one worker, and so one engine, for all of them
]
HI = [{"role": "user", "content": "Pay 120 EUR to Norvik Ltd."}]
DECISION = {
    "type": "object",
    "properties": {
        "pay": {"enum": ["yes", "no", "ask"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["pay", "days"],
    "additionalProperties": False,
}
FUNCTION = {"name": "decide", "description": "whether to pay", "parameters": DECISION}


@asynccontextmanager
async def asking(folder: Path, engine: RealEngine, adapter: RealAdapter) -> AsyncIterator[tuple[House, str]]:
    house = House(folder, engines=EnginePool(Timeouts()))
    house.scene.engine(url=engine.spec.url)
    version = house.scene.version("bank_a")
    policy = Policy(tenant="bank_a", name="free", tools=("*",))
    house.scene.policies[policy.identity()] = policy
    house.scene.route("bank_a", policy.identity())
    house.scene.attest(version)
    secret = house.scene.key("bank_a")
    async with engine.client() as client:
        await client.load(engine_name(version), adapter.folder)
        await house.app.start()
        try:
            await house.publish()
            yield house, secret
        finally:
            await house.app.stop()
            await client.unload(engine_name(version))


async def post(house: House, secret: str, path: str, **body: Any) -> Response:
    response = await house.call(secret, {"model": "assistant", **body}, path=path).done()
    assert engine_name(house.scene.versions[0].version).encode() not in response.body
    return response


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_is_called_with_arguments_of_its_schema(
    engine: RealEngine, adapters: dict[str, RealAdapter], tmp_path: Path, stream: bool
) -> None:
    tools = [{"type": "function", "function": FUNCTION}]
    named = {"type": "function", "function": {"name": "decide"}}
    async with asking(tmp_path, engine, adapters["first"]) as (house, secret):
        for choice in ("required", named):
            response = await post(
                house, secret, "/v1/chat/completions", messages=HI, tools=tools, tool_choice=choice,
                parallel_tool_calls=False, max_tokens=120, stream=stream,
            )  # fmt: skip
            assert response.status == 200, response.body
            if stream:
                *chunks, done = response.events()
                assert done == "[DONE]", response.body
                parts = [c["choices"][0]["delta"].get("tool_calls", []) for c in chunks]
                written = "".join(p["function"].get("arguments", "") for part in parts for p in part)
                reason = chunks[-1]["choices"][0]["finish_reason"]
            else:
                (said,) = response.json()["choices"]
                (call,) = said["message"]["tool_calls"]
                written, reason = call["function"]["arguments"], said["finish_reason"]
            assert set(json.loads(written)) == {"pay", "days"}
            assert reason == "tool_calls"


async def test_the_model_itself_decides_to_call_a_tool(engine: RealEngine, tmp_path: Path) -> None:
    """``auto``: the engine's parser finds the call in what the model wrote; nothing held it to a grammar."""
    folder = write_lora(tmp_path / "faint", seed=3, size=0.002)
    adapter = RealAdapter(folder, make_fingerprint(engine.base.identity(), SHIPPED_BASE, folder, []))
    row = tool_row(Random(4))
    asked, expected = row["messages"][0], row["messages"][1]["tool_calls"][0]["function"]
    async with asking(tmp_path, engine, adapter) as (house, secret):
        question: dict[str, Any] = {
            "messages": [asked], "tools": row["tools"], "tool_choice": "auto", "max_tokens": 200,
            "temperature": 0,
        }  # fmt: skip
        whole = await post(house, secret, "/v1/chat/completions", **question)
        assert whole.status == 200, whole.body
        (said,) = whole.json()["choices"]
        (call,) = said["message"]["tool_calls"]
        assert said["finish_reason"] == "tool_calls"
        assert call["function"]["name"] == expected["name"]
        assert json.loads(call["function"]["arguments"]).keys() == expected["arguments"].keys()
        streamed = await post(house, secret, "/v1/chat/completions", **question, stream=True)
        *chunks, done = streamed.events()
        assert done == "[DONE]", streamed.body
        parts = [p["function"] for c in chunks for p in c["choices"][0]["delta"].get("tool_calls", [])]
        # vLLM writes a whole call's arguments anew (with spaces); a streamed one's are as the model wrote.
        written = "".join(part.get("arguments", "") for part in parts)
        assert json.loads(written) == json.loads(call["function"]["arguments"])
        assert [part["name"] for part in parts if "name" in part] == [expected["name"]]
        plain = await post(house, secret, "/v1/chat/completions", **question | {"tool_choice": "none"})
        assert plain.status == 200, plain.body
        assert not plain.json()["choices"][0]["message"].get("tool_calls")


async def test_completions_of_text_and_tokens(
    engine: RealEngine, adapters: dict[str, RealAdapter], tmp_path: Path
) -> None:
    async with asking(tmp_path, engine, adapters["first"]) as (house, secret):
        whole = await post(
            house, secret, "/v1/completions", prompt=["Pay", "Ask"], max_tokens=4, logprobs=2, seed=1
        )
        answer = whole.json()
        assert [choice["index"] for choice in answer["choices"]] == [0, 1]
        assert all(len(choice["logprobs"]["tokens"]) >= 1 for choice in answer["choices"])
        streamed = await post(
            house, secret, "/v1/completions", prompt=[[1, 2, 3], [4]], max_tokens=4, stream=True
        )
        assert streamed.events()[-1] == "[DONE]", streamed.body
        assert house.outcome(streamed).completion_tokens


async def test_responses_and_messages(
    engine: RealEngine, adapters: dict[str, RealAdapter], tmp_path: Path
) -> None:
    async with asking(tmp_path, engine, adapters["first"]) as (house, secret):
        for stream in (False, True):
            answer = await post(
                house, secret, "/v1/responses", input="Pay?", max_output_tokens=4, stream=stream
            )
            assert answer.status == 200, answer.body
            assert b'"incomplete"' in answer.body
            said = await post(house, secret, "/v1/messages", messages=HI, max_tokens=4, stream=stream)
            assert said.status == 200, said.body
            assert b'"max_tokens"' in said.body
            assert house.outcome(said).finish_reasons == ("length",)


async def test_a_base_that_does_not_embed_says_so(
    engine: RealEngine, adapters: dict[str, RealAdapter], tmp_path: Path
) -> None:
    async with asking(tmp_path, engine, adapters["first"]) as (house, secret):
        refused = await post(house, secret, "/v1/embeddings", input="Pay")
        assert (refused.status, refused.code) == (400, "endpoint_unsupported")
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
        asked = [{"role": "user", "content": [image]}]
        seen = await post(house, secret, "/v1/chat/completions", messages=asked, max_tokens=2)
        assert (seen.status, seen.code) == (400, "request_rejected_by_engine")
