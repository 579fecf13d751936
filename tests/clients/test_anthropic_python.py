"""The official ``anthropic`` client for Python at ``/v1/messages``."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from server.testing.fake_engine import FakeOptions, Faults
from tests.clients.conftest import CITY, Desk, standing

HI: Any = [{"role": "user", "content": "Pay Norvik"}]
WEATHER: Any = [{"name": "weather", "description": "of a city", "input_schema": CITY}]


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with at(desk) as found:
        yield found


def at(desk: Desk, secret: str | None = None) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(api_key=secret or desk.secret, base_url=desk.url, max_retries=0)


async def test_a_message(desk: Desk, client: anthropic.AsyncAnthropic) -> None:
    answer = await client.messages.create(
        model="assistant", messages=HI, max_tokens=100, system="be brief", stop_sequences=["zz"]
    )
    assert (answer.model, answer.stop_reason, answer.role) == ("assistant", "end_turn", "assistant")
    (block,) = answer.content
    assert block.type == "text"
    assert desk.signed in block.text
    assert answer.usage.output_tokens > 0
    assert desk.asked()["stop"] == ["zz"]
    assert [message["role"] for message in desk.asked()["messages"]] == ["system", "user"]
    assert desk.engine_name not in answer.model_dump_json()
    cut = await client.messages.create(model="assistant", messages=HI, max_tokens=2)
    assert cut.stop_reason == "max_tokens"


async def test_a_message_streams(desk: Desk, client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(model="assistant", messages=HI, max_tokens=100) as stream:
        text = "".join([part async for part in stream.text_stream])
        final = await stream.get_final_message()
    assert desk.signed in text
    assert (final.stop_reason, final.model) == ("end_turn", "assistant")
    assert final.usage.output_tokens > 0
    assert desk.record(final.id).finish_reasons == ("stop",)


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_are_called_and_heard(
    desk: Desk, client: anthropic.AsyncAnthropic, streamed: bool
) -> None:
    asking: Any = {"model": "assistant", "max_tokens": 100, "tools": WEATHER, "tool_choice": {"type": "any"}}
    if streamed:
        async with client.messages.stream(messages=HI, **asking) as stream:
            answer: Any = await stream.get_final_message()
    else:
        answer = await client.messages.create(messages=HI, **asking)
    assert (desk.asked()["tool_choice"], desk.asked()["tools"][0]["function"]["strict"]) == ("required", True)
    assert answer.stop_reason == "tool_use"
    (call,) = answer.content
    assert (call.name, call.input) == ("weather", {"city": desk.signed, "days": 1})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    history = [*HI, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    again = await client.messages.create(**{**asking, "messages": history, "tool_choice": {"type": "auto"}})
    assert again.stop_reason == "end_turn"
    assert [message["role"] for message in desk.asked()["messages"]] == ["user", "assistant", "tool"]


async def test_errors_are_anthropics(desk: Desk) -> None:
    async with at(desk, "tn_nobody") as stranger:
        with pytest.raises(anthropic.AuthenticationError) as unknown:
            await stranger.messages.create(model="assistant", messages=HI, max_tokens=1)
    assert unknown.value.body == {
        "type": "error",
        "error": {
            "type": "authentication_error",
            "message": "the API key is not valid",
            "code": "invalid_api_key",
            "hint": "check the key with your tenant's administrator; a revoked key stays revoked",
        },
    }
    async with at(desk) as client:
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(model="cashier", messages=HI, max_tokens=1)
        with pytest.raises(anthropic.BadRequestError):
            await client.messages.create(
                model="assistant", messages=HI, max_tokens=1, extra_body={"top_k": 3}
            )
        url: Any = [{"type": "image", "source": {"type": "url", "url": "http://169.254.169.254/"}}]
        with pytest.raises(anthropic.BadRequestError):
            await client.messages.create(
                model="assistant", messages=[{"role": "user", "content": url}], max_tokens=1
            )
    assert not desk.fake.seen


async def test_an_image_inside_the_request(tmp_path: Path) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}
    asked: Any = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    async with standing(tmp_path, FakeOptions(multimodal=True)) as desk, at(desk) as client:
        await client.messages.create(model="assistant", messages=asked, max_tokens=100)
        (part,) = desk.asked()["messages"][0]["content"]
        assert part == {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}


async def test_a_stream_that_breaks_raises(tmp_path: Path) -> None:
    async with standing(tmp_path, faults=Faults(die_mid_stream=True)) as desk, at(desk) as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            async with client.messages.stream(model="assistant", messages=HI, max_tokens=100) as stream:
                await stream.get_final_message()
        assert "engine_interrupted" in str(caught.value.body)


async def test_two_credentials_are_refused(desk: Desk) -> None:
    body = {"model": "assistant", "messages": HI, "max_tokens": 1}
    key: Any = {"headers": {"X-Api-Key": desk.secret}}
    alone: Any = {"headers": {"X-Api-Key": desk.secret, "Authorization": openai.omit}}
    async with openai.AsyncOpenAI(api_key=desk.secret, base_url=desk.url, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.post("/v1/messages", body=body, options=key, cast_to=bytes)
        with pytest.raises(openai.AuthenticationError):  # nowhere else is that header a key
            await client.post("/v1/chat/completions", body=body, options=alone, cast_to=bytes)
        assert not desk.fake.seen
        await client.post("/v1/messages", body=body, options=alone, cast_to=bytes)
