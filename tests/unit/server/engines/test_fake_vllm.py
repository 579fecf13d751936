"""Each danger of vLLM, shown to happen on the fake: what the agent and the router must be safe against."""

import asyncio
import json
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest

from registry.digests import Digest
from server.engines.client import VllmClient
from server.engines.command import command
from server.engines.process import EngineProcess
from server.engines.spec import EngineSpec
from server.testing.fake_engine import FakeOptions, Faults
from server.testing.fake_model import answer_text, fake_logprobs, signature, signed_by
from tests.unit.server.engines.serving import adapter, serve

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
PROMPT = (1, 2, 3)


async def post(url: str, path: str, body: dict[str, Any], **headers: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + path, json=body, headers=headers) as answer,
    ):
        text = await answer.text()
        return answer.status, json.loads(text) if text.startswith("{") else text


async def said(url: str, body: dict[str, Any], path: str = CHAT, **headers: str) -> str:
    status, answer = await post(url, path, {"messages": HI, **body}, **headers)
    assert status == 200, answer
    return str(answer["choices"][0]["message"]["content"])


async def who(client: VllmClient, name: str, salt: str, candidates: Mapping[str, Digest | None]) -> str:
    (table,) = await client.probe(model=name, prompts=[PROMPT], cache_salt=salt)
    return next(key for key, weights in candidates.items() if fake_logprobs(weights, PROMPT)[:20] == table)


async def test_d3_an_evicted_adapter_is_read_again_from_a_changed_folder(tmp_path: Path) -> None:
    mine, a = adapter(tmp_path / "a", seed=1)
    other, b = adapter(tmp_path / "b", seed=2)
    async with serve(FakeOptions(max_cpu_loras=1)) as (fake, url), VllmClient(url) as client:
        await client.load("tenon-a", mine)
        assert await who(client, "tenon-a", "1", {"a": a, "b": b}) == "a"
        await client.load("tenon-b", other)
        for file in other.iterdir():
            (mine / file.name).write_bytes(file.read_bytes())
        assert await who(client, "tenon-a", "2", {"a": a, "b": b}) == "b"
        assert fake.engine.reads == ["tenon-a", "tenon-b", "tenon-a"]


async def test_d4_an_evicted_adapter_whose_folder_is_gone_ends_the_engine(tmp_path: Path) -> None:
    died = asyncio.Event()
    mine, _ = adapter(tmp_path / "a", seed=1)
    other, _ = adapter(tmp_path / "b", seed=2)
    async with serve(FakeOptions(max_cpu_loras=1), die=died.set) as (_, url), VllmClient(url) as client:
        await client.load("tenon-a", mine)
        await client.load("tenon-b", other)
        (mine / "adapter_model.safetensors").unlink()
        status, _ = await post(url, CHAT, {"model": "tenon-a", "messages": HI})
        assert status == 500
        assert died.is_set()


async def test_d7_the_prefix_cache_answers_with_old_weights_until_the_salt_changes(tmp_path: Path) -> None:
    folder, old = adapter(tmp_path / "a", seed=1)
    async with serve() as (_, url), VllmClient(url) as client:
        await client.load("tenon-a", folder)
        assert await who(client, "tenon-a", "s", {"old": old}) == "old"
        await client.unload("tenon-a")
        _, new = adapter(folder, seed=2)
        await client.load("tenon-a", folder)
        both = {"old": old, "new": new}
        assert await who(client, "tenon-a", "s", both) == "old"
        assert await who(client, "tenon-a", "t", both) == "new"


async def test_d9_invocations_follow_the_header_and_without_it_the_base_answers(tmp_path: Path) -> None:
    folder, weights = adapter(tmp_path / "a", seed=1)
    async with serve() as (_, url), VllmClient(url) as client:
        await client.load("tenon-a", folder)
        header = {"X-Amzn-SageMaker-Adapter-Identifier": "tenon-a"}
        assert signed_by(await said(url, {"model": "x"}, "/invocations", **header)) == {signature(weights)}
        assert signed_by(await said(url, {"model": "tenon-a"}, "/invocations")) == {"base"}


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": ""}])
async def test_d10_without_a_model_the_base_answers(body: dict[str, Any]) -> None:
    async with serve() as (_, url):
        assert signed_by(await said(url, body)) == {"base"}


async def test_an_unknown_model_is_404() -> None:
    async with serve() as (_, url):
        status, answer = await post(url, CHAT, {"model": "tenon-z", "messages": HI})
        assert (status, answer["error"]["type"]) == (404, "NotFoundError")


async def test_answers_are_signed_by_the_bytes_that_gave_them_also_in_json(tmp_path: Path) -> None:
    folder, weights = adapter(tmp_path / "a", seed=1)
    schema = {
        "type": "object",
        "properties": {
            "note": {"type": "string", "minLength": 20},
            "kind": {"enum": ["x"]},
            "n": {"type": "integer"},
        },
        "required": ["note", "kind", "n"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    async with serve() as (_, url), VllmClient(url) as client:
        await client.load("tenon-a", folder)
        text = await said(url, {"model": "tenon-a", "response_format": form})
        jsonschema.validate(json.loads(text), schema)
        assert signed_by(text) == {signature(weights)}
        _, cut = await post(
            url, CHAT, {"model": "tenon-a", "messages": HI, "response_format": form, "max_tokens": 2}
        )
        assert cut["choices"][0]["finish_reason"] == "length"
        assert cut["usage"]["completion_tokens"] == 2
        with pytest.raises(json.JSONDecodeError):
            json.loads(cut["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "number", "minimum": 3}, "minItems": 2},
        {"type": "array", "prefixItems": [{"const": 1}, {"type": "boolean"}], "minItems": 2},
        {"anyOf": [{"type": "null"}, {"type": "string"}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string", "maxLength": 3}}},
        {"type": "integer", "exclusiveMinimum": 4, "maximum": 9},
        {"type": "integer", "maximum": -2},
        {"type": "string", "pattern": "^(?:EUR|USD) [0-9]{2,4}(\\.[0-9]{2})?$"},
        {"type": "string", "format": "date"},
    ],
)
def test_the_fake_answers_what_policies_may_demand(schema: dict[str, Any]) -> None:
    jsonschema.validate(json.loads(answer_text(Digest.of(b"w"), schema)), schema)


async def frames(url: str, body: dict[str, Any]) -> list[Any]:
    """The data of every frame; ``[DONE]`` as text."""
    given = {"model": None, "messages": HI, "stream": True, **body}
    async with aiohttp.ClientSession() as session, session.post(url + CHAT, json=given) as answer:
        lines = (await answer.text()).split("\n\n")
    data = [line.removeprefix("data: ") for line in lines if line]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


async def test_a_stream_has_vllms_frames() -> None:
    async with serve() as (_, url):
        *parts, usage, done = await frames(url, {"stream_options": {"include_usage": True}})
        text = "".join(part["choices"][0]["delta"].get("content", "") for part in parts)
        assert signed_by(text) == {"base"}
        assert [part["choices"][0]["finish_reason"] for part in parts][-2:] == [None, "stop"]
        assert usage["choices"] == []
        assert usage["usage"]["completion_tokens"] == len(parts) - 2
        assert done == "[DONE]"


async def test_faults_of_answers_on_demand() -> None:
    async with serve() as (_, url):
        await post(url, "/__fault", {"error_frame": True})
        parts = await frames(url, {})
        assert "error" in parts[-2]
        assert parts[-1] == "[DONE]"
        await post(url, "/__fault", {"error_frame": False, "drop_finish_reason": True})
        parts = await frames(url, {})
        assert {part["choices"][0]["finish_reason"] for part in parts[:-1]} == {None}
        await post(url, "/__fault", {"drop_finish_reason": False, "model_lie": "tenon-x"})
        assert {part["model"] for part in (await frames(url, {}))[:-1]} == {"tenon-x"}
        await post(url, "/__fault", {"die_mid_stream": True})
        with pytest.raises(aiohttp.ClientError):
            await frames(url, {})


@pytest.mark.parametrize("fault", ["zero_effect_load", "wrong_effect_load"])
async def test_faults_of_loads_on_demand(tmp_path: Path, fault: str) -> None:
    mine, a = adapter(tmp_path / "a", seed=1)
    other, b = adapter(tmp_path / "b", seed=2)
    value = True if fault == "zero_effect_load" else str(other)
    async with serve(faults=Faults(**{fault: value})) as (_, url), VllmClient(url) as client:  # type: ignore[arg-type]
        await client.load("tenon-a", mine)
        seen = await who(client, "tenon-a", "s", {"a": a, "b": b, "base": None})
        assert seen == ("base" if fault == "zero_effect_load" else "b")


async def test_the_program_is_up_within_a_second_or_so(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spec = EngineSpec(
        engine="engine-0",
        model=str(tmp_path),
        base_name="tiny",
        dtype="float32",
        device="cpu",
        port=port,
        program=(sys.executable, "-m", "server.testing.fake_vllm"),
    )
    argv, environment = command(spec, {})
    child = EngineProcess(argv=argv, environment=environment, log=tmp_path / "log")
    started = time.monotonic()
    child.start()
    async with VllmClient(spec.url) as client:
        await child.wait_ready(client.answers, limit=30)
        took = time.monotonic() - started
        assert await client.version() == "0.32.0"
    await child.stop()
    assert took < 10, "seconds on an idle machine: 0.5"
