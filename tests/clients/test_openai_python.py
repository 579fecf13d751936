"""The official ``openai`` client for Python, at every endpoint it has in common with the router."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from router.records import content_digest
from server.testing.fake_engine import FakeOptions, Faults
from tests.clients.conftest import CITY, Desk, standing

HI: Any = [{"role": "user", "content": "Pay Norvik"}]
WEATHER: Any = [
    {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": CITY}}
]
PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[openai.AsyncOpenAI]:
    async with at(desk) as found:
        yield found


def at(desk: Desk, secret: str | None = None) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=secret or desk.secret, base_url=f"{desk.url}/v1", max_retries=0)


def nothing_of_the_engine(desk: Desk, *answers: BaseModel) -> None:
    for answer in answers:
        told = answer.model_dump_json(warnings=False)
        assert desk.engine_name not in told
        assert "fake" not in told


async def test_chat(desk: Desk, client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="assistant",
        messages=HI,
        seed=4,
        stop=["zz"],
        n=2,
        temperature=0.5,
        logprobs=True,
        top_logprobs=2,
    )
    assert answer.model == "assistant"
    assert [choice.index for choice in answer.choices] == [0, 1]
    choice = answer.choices[0]
    assert desk.signed in (choice.message.content or "")
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
    assert len(choice.logprobs.content[0].top_logprobs) == 2
    asked = desk.asked()
    assert (asked["seed"], asked["stop"], asked["n"]) == (4, ["zz"], 2)
    nothing_of_the_engine(desk, answer)


async def test_chat_streams_with_usage(desk: Desk, client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="assistant", messages=HI, stream=True, stream_options={"include_usage": True}, logprobs=True
    )
    events = [event async for event in stream]
    text = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
    assert desk.signed in text
    assert events[-1].usage is not None
    assert {event.model for event in events} == {"assistant"}
    assert events[1].choices[0].logprobs is not None
    assert desk.record(events[0].id).answer == content_digest([text])
    nothing_of_the_engine(desk, *events)


@pytest.mark.parametrize(
    "choice", ["auto", "required", {"type": "function", "function": {"name": "weather"}}]
)
async def test_tools_are_strict_and_called(desk: Desk, client: openai.AsyncOpenAI, choice: Any) -> None:
    answer = await client.chat.completions.create(
        model="assistant", messages=HI, tools=WEATHER, tool_choice=choice, parallel_tool_calls=False
    )
    asked = desk.asked()
    assert asked["tools"][0]["function"]["strict"] is True
    assert (asked["tool_choice"], asked["parallel_tool_calls"]) == (choice, False)
    said = answer.choices[0]
    assert said.finish_reason == "tool_calls"
    (call,) = said.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": desk.signed, "days": 1}
    assert call.id.startswith("call_")
    nothing_of_the_engine(desk, answer)
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    history = [*HI, said.message.model_dump(exclude_none=True), result]
    again = await client.chat.completions.create(model="assistant", messages=history, tools=WEATHER)
    assert desk.signed in (again.choices[0].message.content or "")
    sent = desk.asked()["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == call.id


async def test_tools_stream_and_the_helper_puts_them_together(desk: Desk, client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model="assistant", messages=HI, tools=WEATHER) as stream:
        async for _ in stream:
            pass
        answer = await stream.get_final_completion()
    (call,) = answer.choices[0].message.tool_calls or []
    assert answer.choices[0].finish_reason == "tool_calls"
    assert json.loads(call.function.arguments) == {"city": desk.signed, "days": 1}
    said = json.dumps(
        {"content": "", "tool_calls": [["weather", call.function.arguments]]}, separators=(",", ":")
    )
    assert desk.record(answer.id).answer == content_digest([said])


async def test_a_tool_that_the_policy_does_not_name(desk: Desk, client: openai.AsyncOpenAI) -> None:
    for model, code in (("toolless", "tool_not_allowed"), ("strict", "unsupported_parameter")):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model=model, messages=HI, tools=WEATHER)
        assert caught.value.code == code
    assert not desk.fake.seen


class Payment(BaseModel):
    zeta: str
    amount: int


async def test_a_schema_of_the_policy_parses(desk: Desk, client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="strict", messages=HI)
    assert Payment.model_validate_json(answer.choices[0].message.content or "").zeta == desk.signed
    free = await client.chat.completions.create(
        model="assistant", messages=HI, response_format={"type": "json_object"}
    )
    assert desk.asked()["response_format"] == {"type": "json_object"}
    nothing_of_the_engine(desk, answer, free)


async def test_images_reach_only_a_base_that_sees_and_are_never_fetched(tmp_path: Path) -> None:
    def asking(url: str) -> Any:
        parts = [{"type": "text", "text": "what is it"}, {"type": "image_url", "image_url": {"url": url}}]
        return [{"role": "user", "content": parts}]

    async with standing(tmp_path / "a", FakeOptions(multimodal=True)) as desk, at(desk) as client:
        await client.chat.completions.create(model="assistant", messages=asking(PIXEL))
        assert desk.asked()["messages"][0]["content"][1]["image_url"] == {"url": PIXEL}
        for url in ("http://169.254.169.254/latest", "file:///etc/passwd", "data:text/html;base64,AA", "//x"):
            with pytest.raises(openai.BadRequestError) as caught:
                await client.chat.completions.create(model="assistant", messages=asking(url))
            assert caught.value.code == "unsupported_parameter"
        assert len(desk.fake.seen) == 1
    async with standing(tmp_path / "b") as desk, at(desk) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="assistant", messages=asking(PIXEL))
        assert caught.value.code == "request_rejected_by_engine"


async def test_completions_of_texts_and_tokens(desk: Desk, client: openai.AsyncOpenAI) -> None:
    prompts: list[Any] = ["Once", ["Once", "Twice"], [1, 2, 3], [[1, 2], [3]]]
    for prompt, count in zip(prompts, (1, 2, 1, 2), strict=True):
        answer = await client.completions.create(model="assistant", prompt=prompt, max_tokens=40, logprobs=2)
        assert [choice.index for choice in answer.choices] == list(range(count))
        assert all(desk.signed in choice.text for choice in answer.choices)
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.top_logprobs is not None
        assert len(logprobs.top_logprobs[0]) == 2
        assert answer.model == "assistant"
        nothing_of_the_engine(desk, answer)
        assert desk.asked()["cache_salt"]


async def test_completions_stream(desk: Desk, client: openai.AsyncOpenAI) -> None:
    stream = await client.completions.create(model="assistant", prompt=["a", "b"], max_tokens=40, stream=True)
    texts, ends, events = ["", ""], ["", ""], []
    async for event in stream:
        events.append(event)
        for choice in event.choices:
            texts[choice.index] += choice.text
            if choice.finish_reason:  # null in all chunks but the last, which the client's types do not say
                ends[choice.index] += choice.finish_reason
    assert ends == ["stop", "stop"]
    assert all(desk.signed in text for text in texts)
    assert desk.record(events[0].id).answer == content_digest(texts)
    nothing_of_the_engine(desk, *events)


async def test_completions_under_a_policy(desk: Desk, client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="strict", prompt="a", max_tokens=200)
    assert json.loads(answer.choices[0].text)["zeta"] == desk.signed
    with pytest.raises(openai.UnprocessableEntityError) as cut:
        await client.completions.create(model="strict", prompt="a", max_tokens=3)
    assert cut.value.code == "output_truncated"
    with pytest.raises(openai.BadRequestError) as refused:
        await client.completions.create(model="formal", prompt="a")
    assert refused.value.code == "endpoint_not_allowed"


@pytest.mark.parametrize(
    "extra", [{"echo": True}, {"echo": True, "logprobs": 1}, {"suffix": "x"}, {"best_of": 2}]
)
async def test_what_would_kill_an_engine_is_refused(
    desk: Desk, client: openai.AsyncOpenAI, extra: Any
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.completions.create(model="assistant", prompt="a", **extra)
    assert caught.value.code == "unsupported_parameter"
    with pytest.raises(openai.BadRequestError) as other:
        await client.completions.create(model="assistant", prompt="a", extra_body={"prompt_logprobs": 1})
    assert other.value.code == "unsupported_parameter"
    assert not desk.fake.seen


async def test_embeddings_where_the_base_embeds(tmp_path: Path) -> None:
    async with standing(tmp_path, FakeOptions(embeds=True)) as desk, at(desk) as client:
        found = await client.embeddings.create(
            model="assistant", input=["a", "b"], dimensions=4
        )  # base64 inside
        assert [len(row.embedding) for row in found.data] == [4, 4]
        plain = await client.embeddings.create(model="assistant", input="a", encoding_format="float")
        assert plain.data[0].embedding[:4] == pytest.approx(found.data[0].embedding, rel=1e-6)
        assert (found.model, found.usage.prompt_tokens) == ("assistant", 2)
        nothing_of_the_engine(desk, found)
        for model in ("strict", "formal"):
            with pytest.raises(openai.BadRequestError) as caught:
                await client.embeddings.create(model=model, input="a")
            assert caught.value.code == "endpoint_not_allowed"


async def test_embeddings_where_it_does_not(desk: Desk, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model="assistant", input="a")
    assert caught.value.code == "endpoint_unsupported"


async def test_a_response(desk: Desk, client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(
        model="assistant", input="Pay", instructions="be brief", store=False, metadata={"a": "b"}
    )
    assert desk.signed in answer.output_text
    assert (answer.status, answer.model, answer.metadata) == ("completed", "assistant", {"a": "b"})
    assert answer.usage is not None
    assert answer.usage.output_tokens > 0
    assert [message["role"] for message in desk.asked()["messages"]] == ["system", "user"]
    nothing_of_the_engine(desk, answer)
    more: Any = [{"role": "user", "content": "Pay"}, *answer.output, {"role": "user", "content": "again"}]
    await client.responses.create(model="assistant", input=more)
    assert [message["role"] for message in desk.asked()["messages"]] == ["user", "assistant", "user"]
    cut = await client.responses.create(model="assistant", input="Pay", max_output_tokens=2)
    assert (cut.status, cut.incomplete_details and cut.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )


async def test_a_response_calls_tools_and_hears_of_them(desk: Desk, client: openai.AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "name": "weather", "parameters": CITY, "strict": True}
    asked: Any = [{"role": "user", "content": "Pay"}]
    answer = await client.responses.create(model="assistant", input=asked, tools=[tool])
    (call,) = answer.output
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": desk.signed, "days": 1}
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    told: Any = [*asked, call, output]
    again = await client.responses.create(model="assistant", input=told, tools=[tool])
    assert desk.signed in again.output_text
    assert [message["role"] for message in desk.asked()["messages"]] == ["user", "assistant", "tool"]


async def test_a_response_streams_in_its_own_events(desk: Desk, client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model="assistant", input="Pay") as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert desk.signed in final.output_text
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    raw = await client.responses.create(model="assistant", input="Pay", stream=True)
    numbers = [event.sequence_number async for event in raw]
    assert numbers == list(range(len(numbers)))
    assert desk.record(final.id).answer == content_digest([final.output_text])


async def test_a_streamed_response_calls_a_tool(desk: Desk, client: openai.AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "name": "weather", "parameters": CITY}
    async with client.responses.stream(model="assistant", input="Pay", tools=[tool]) as stream:
        final = await stream.get_final_response()
    (call,) = final.output
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": desk.signed, "days": 1}


async def test_a_response_in_a_form(desk: Desk, client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(
        model="assistant", input="Pay", text={"format": {"type": "json_object"}}
    )
    assert desk.asked()["response_format"] == {"type": "json_object"}
    assert answer.text is not None
    parsed = await client.responses.create(model="strict", input="Pay")
    assert Payment.model_validate_json(parsed.output_text).amount == 0


@pytest.mark.parametrize(
    "extra",
    [
        {"previous_response_id": "resp_1"}, {"store": True}, {"background": True},
        {"tools": [{"type": "web_search"}]}, {"include": ["reasoning.encrypted_content"]},
        {"input": [{"type": "item_reference", "id": "x"}]}, {"truncation": "auto"},
        {"reasoning": {"effort": "low"}},
    ],
)  # fmt: skip
async def test_nothing_is_kept_between_responses(desk: Desk, client: openai.AsyncOpenAI, extra: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(**{"model": "assistant", "input": "Pay", **extra})
    assert caught.value.code == "unsupported_parameter"
    assert not desk.fake.seen


async def test_models_are_the_tenants_own(desk: Desk, client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["assistant", "formal", "strict", "toolless"]
    assert (await client.models.retrieve("assistant")).owned_by == "bank_a"
    errors = []
    for name in ("cashier", "nobody", desk.engine_name):
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve(name)
        errors.append(caught.value.response.content)
    assert len(set(errors)) == 1
    async with at(desk, desk.foreign) as other:
        assert [model.id async for model in other.models.list()] == ["cashier"]


@pytest.mark.parametrize("surface", ["chat", "completions", "responses"])
async def test_a_stream_that_breaks_raises(tmp_path: Path, surface: str) -> None:
    async with standing(tmp_path, faults=Faults(die_mid_stream=True)) as desk, at(desk) as client:
        calls: dict[str, Any] = {
            "chat": lambda: client.chat.completions.create(model="assistant", messages=HI, stream=True),
            "completions": lambda: client.completions.create(model="assistant", prompt="a", stream=True),
            "responses": lambda: client.responses.create(model="assistant", input="a", stream=True),
        }
        stream = await calls[surface]()
        with pytest.raises(openai.APIError) as caught:
            async for _ in stream:
                pass
        assert caught.value.code == "engine_interrupted"


@pytest.mark.parametrize("surface", ["chat", "completions", "embeddings", "responses"])
async def test_an_engine_that_lies_about_who_answered(tmp_path: Path, surface: str) -> None:
    options = FakeOptions(embeds=True)
    async with standing(tmp_path, options, Faults(model_lie="other")) as desk, at(desk) as client:
        calls: dict[str, Any] = {
            "chat": lambda: client.chat.completions.create(model="assistant", messages=HI),
            "completions": lambda: client.completions.create(model="assistant", prompt="a"),
            "embeddings": lambda: client.embeddings.create(model="assistant", input="a"),
            "responses": lambda: client.responses.create(model="assistant", input="a"),
        }
        with pytest.raises(openai.InternalServerError) as caught:
            await calls[surface]()
        assert caught.value.code == "engine_answer_mismatch"
