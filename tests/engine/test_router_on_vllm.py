"""What the router promises of an answer, seen in vLLM itself: its words, its counts and its aborts."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.assignment import assigned
from registry.counting import SLICE_SECONDS
from registry.digests import Digest
from registry.models import Canary, Policy, Quota, Sampling, Tenant
from router.errors import ClientGone
from router.records import content_digest
from tests.clients import node_suite
from tests.engine.conftest import RealEngine, write_lora
from tests.engine.processes import processes, stopped
from tests.engine.standing import FREE, HI, Standing, standing
from tests.journeys.commands import tenon_here
from tests.unit.router.driving import Response, until

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),  # the first test also waits for the engine's start
    pytest.mark.xdist_group("engine"),
]
VERDICT = {
    "type": "object",
    "properties": {"reason": {"type": "string", "maxLength": 20}, "verdict": {"enum": ["pay", "hold"]}},
    "required": ["reason", "verdict"],
    "additionalProperties": False,
}
ESSAY = {
    "type": "object",
    "properties": {"text": {"type": "string", "minLength": 6000}},
    "required": ["text"],
    "additionalProperties": False,
}
"""More than 1,600 tokens of the demo base's vocabulary, whatever the adapter would rather say."""


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters that are heard within a few words; the suite's own leave the base its habits."""
    root = tmp_path_factory.mktemp("voices")
    return [write_lora(root / str(seed), seed=seed, size=0.3) for seed in (1, 2)]


def policy(name: str, schema: dict[str, Any], **sampling: Any) -> Policy:
    return Policy(tenant="bank_a", name=name, json_schema=json.dumps(schema), sampling=Sampling(**sampling))


def contents(response: Response) -> list[str]:
    """Of each choice, whole or streamed."""
    assert response.status == 200, response.body
    if not response.headers["content-type"].startswith("text/event-stream"):
        return [choice["message"]["content"] for choice in response.json()["choices"]]
    *events, done = response.events()
    assert done == "[DONE]", response.body
    found: dict[int, str] = {}
    for choice in (choice for event in events for choice in event["choices"]):
        found[choice["index"]] = found.get(choice["index"], "") + (choice["delta"].get("content") or "")
    return [found[index] for index in range(len(found))]


async def test_a_client_that_hangs_up_ends_its_sequence_in_vllm(
    engine: RealEngine, voices: list[Path], tmp_path: Path
) -> None:
    """Before its first word, while vLLM's core stands still: one that works may be done before a busy machine
    lets this process hang up."""
    long = policy("long", ESSAY, max_tokens=1600)
    core = processes(engine.spec.port)["VLLM::EngineCore"]
    async with standing(tmp_path, engine, voices[:1], {"assistant": long}) as stand:
        made = await stand.metric("vllm:generation_tokens_total")
        client = httpx.AsyncClient(headers={"Authorization": f"Bearer {stand.secret}"}, timeout=60)
        body = {"model": "assistant", "messages": HI, "stream": True}
        async with client:
            with stopped(core):
                asking = asyncio.create_task(client.post(f"{stand.url}/v1/chat/completions", json=body))
                await until(lambda: stand.house.app.drain.busy == 1)
                await stand.heard()
                asking.cancel()
                await until(lambda: [record.event for record in stand.house.records()] == ["outcome"])
                await stand.heard()
        # Behind the first in vLLM's queue, so nothing that it says is older than the hang-up.
        await stand.directly(stand.versions[0], messages=HI, max_tokens=8)
        await stand.idle()
        made = await stand.metric("vllm:generation_tokens_total") - made
        assert made < 800, "of the 1,600 that it was to have"
        (record,) = stand.house.records()
        assert (record.status, record.code) == (ClientGone.status, ClientGone.code)


async def test_choices_differ_and_a_seed_brings_each_again(
    engine: RealEngine, voices: list[Path], tmp_path: Path
) -> None:
    async with standing(tmp_path, engine, voices[:1]) as stand:
        asked: dict[str, Any] = {"messages": HI, "n": 3, "temperature": 1, "max_tokens": 16}
        whole, again, streamed, beside, other = [
            await stand.ask(**asked, seed=seed, stream=stream)
            for seed, stream in ((5, False), (5, False), (5, True), (6, False), (50, False))
        ]
        assert len(set(contents(whole))) == 3
        assert contents(whole) == contents(again) == contents(streamed)
        # vLLM seeds the i-th choice with seed + i (`router.surfaces.again` steps over all of them).
        assert contents(beside)[:2] == contents(whole)[1:]
        assert set(contents(whole)).isdisjoint(contents(other))


async def test_logprobs_are_of_the_words_that_were_said(
    engine: RealEngine, voices: list[Path], tmp_path: Path
) -> None:
    async with standing(tmp_path, engine, voices[:1]) as stand:
        asked: dict[str, Any] = {"messages": HI, "max_tokens": 8, "logprobs": True, "top_logprobs": 3}
        for stream in (False, True):
            answer = await stand.ask(**asked, stream=stream)
            (text,) = contents(answer)
            events = answer.events()[:-1] if stream else [answer.json()]
            tokens = [
                token
                for event in events
                for choice in event["choices"]
                for token in (choice["logprobs"] or {}).get("content") or ()
            ]
            assert len(tokens) == stand.house.outcome(answer).completion_tokens == 8
            assert b"".join(bytes(token["bytes"]) for token in tokens).decode() == text
            for token in tokens:
                top = [each["logprob"] for each in token["top_logprobs"]]
                assert len(top) == 3
                # Greedy: the likeliest of all is what was said.
                assert 0 >= token["logprob"] == top[0] > top[1] > top[2]


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_ends_an_answer_before_it(
    engine: RealEngine, voices: list[Path], tmp_path: Path, stream: bool
) -> None:
    async with standing(tmp_path, engine, voices[:1]) as stand:
        (whole,) = contents(await stand.ask(messages=HI, max_tokens=16))
        stop = whole[6:9]
        answer = await stand.ask(messages=HI, max_tokens=16, stop=[stop, "never said"], stream=stream)
        assert contents(answer) == [whole[: whole.index(stop)]]
        assert stand.house.outcome(answer).finish_reasons == ("stop",)


async def test_a_batch_of_prompts_has_each_ones_choices_in_order(
    engine: RealEngine, voices: list[Path], tmp_path: Path
) -> None:
    async with standing(tmp_path, engine, voices[:1]) as stand:

        async def texts(*prompts: str) -> list[str]:
            answer = await stand.ask(
                "/v1/completions", prompt=list(prompts), n=2, seed=3, temperature=1, max_tokens=6
            )
            assert answer.status == 200, answer.body
            choices = answer.json()["choices"]
            assert [choice["index"] for choice in choices] == list(range(2 * len(prompts)))
            return [choice["text"] for choice in choices]

        alone = [await texts("Pay"), await texts("Ask the bank")]
        assert len({*alone[0], *alone[1]}) == 4
        assert await texts("Pay", "Ask the bank") == [*alone[0], *alone[1]]


async def test_a_canary_answers_its_conversations_in_its_own_words(
    engine: RealEngine, voices: list[Path], tmp_path: Path
) -> None:
    async with standing(tmp_path, engine, voices) as stand:
        stable, canary = stand.versions
        asked: dict[str, Any] = {"messages": HI, "max_tokens": 16}
        right = {version: await stand.directly(version, **asked) for version in stand.versions}
        assert right[stable] != right[canary]
        names = [f"conversation-{number}" for number in range(10)]
        before: set[str] = set()
        for percent in (30, 70):
            alias = stand.house.scene.aliases[0].model_copy(
                update={"canaries": (Canary(version=canary, percent=percent),)}
            )
            stand.house.scene.aliases = [alias]
            await stand.house.publish()
            answers = await asyncio.gather(
                *(stand.ask(**asked, headers={"x-conversation-id": name}) for name in names * 2)
            )
            served = set()
            for name, answer in zip(names * 2, answers, strict=True):
                record = stand.house.outcome(answer)
                version = assigned(alias, f"conversation {name}")
                assert (record.version, record.canary) == (version, version == canary)
                assert record.answer == Digest.of(answer.body)
                assert contents(answer) == [right[version]]
                if version == canary:
                    served.add(name)
            assert before < served < set(names)
            before = served


async def test_shadows_are_asked_after_the_answer_and_compared_with_it(
    engine: RealEngine, voices: list[Path], tmp_path: Path
) -> None:
    """One has other weights than the version that answers, one has the same."""
    async with standing(tmp_path, engine, [*voices, voices[0]]) as stand:
        primary, other, twin = stand.versions
        asked: dict[str, Any] = {"messages": HI, "max_tokens": 16}
        right = {version: await stand.directly(version, **asked) for version in stand.versions}
        assert right[primary] == right[twin] != right[other]
        stand.house.scene.aliases = [
            stand.house.scene.aliases[0].model_copy(update={"shadows": (other, twin)})
        ]
        await stand.house.publish()
        answer = await stand.ask(**asked, stream=True)
        assert contents(answer) == [right[primary]]
        await until(lambda: len(stand.house.records()) == 3)
        first, *copies = stand.house.records()
        assert (first.id, first.version) == (answer.record, primary)
        assert first.answer == content_digest([right[primary]])
        assert {copy.shadow_of for copy in copies} == {first.id}
        assert {copy.version: (copy.status, copy.answer, copy.agrees) for copy in copies} == {
            other: (200, content_digest([right[other]]), False),
            twin: (200, first.answer, True),
        }
        shown = tenon_here("shadow", "compare", "bank_a/standing", "--json", "--records", str(tmp_path))
        assert shown.code == 0, shown.err
        found = json.loads(shown.out)
        assert not found["unpaired"]
        pairs = {each["shadow"]["version"]: each for each in found["comparisons"]}
        assert {version: (each["pairs"], each["agreed"]) for version, each in pairs.items()} == {
            other: (1, 0),
            twin: (1, 1),
        }
        for each in pairs.values():
            assert each["answered"]["version"] == primary
            assert each["answered"]["prompt_tokens"] == each["shadow"]["prompt_tokens"] == first.prompt_tokens


async def test_limits_refuse_and_count_what_vllm_counted(
    engine: RealEngine, voices: list[Path], tmp_path: Path
) -> None:
    async with standing(tmp_path, engine, voices[:1]) as stand:
        quota = Quota(requests_per_minute=2, tokens_per_minute=5000)
        stand.house.scene.tenants["bank_a"] = Tenant(id="bank_a", display_name="A", quota=quota)
        await stand.house.publish()
        before = await _tokens(stand)
        streamed = await stand.ask(
            messages=HI, max_tokens=200, stop=["0"], stream=True, stream_options={"include_usage": True}
        )
        assert streamed.headers["x-ratelimit-limit-requests"] == "2"
        assert streamed.headers["x-ratelimit-remaining-requests"] == "1"
        used = streamed.events()[-2]["usage"]["total_tokens"]
        assert await _tokens(stand) - before == used
        whole = await stand.ask(messages=HI, max_tokens=4)
        assert (whole.status, whole.headers["x-ratelimit-remaining-requests"]) == (200, "0")
        used += whole.json()["usage"]["total_tokens"]
        refused = await stand.ask(messages=HI, max_tokens=4)
        assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 60 + SLICE_SECONDS
        # Nothing is reserved any more: what is gone of the minute is what vLLM used.
        assert refused.headers["x-ratelimit-remaining-tokens"] == str(5000 - used)
        assert await _tokens(stand) - before == used


async def _tokens(stand: Standing) -> float:
    """Read and made by vLLM since its start."""
    return sum([await stand.metric(f"vllm:{kind}_tokens_total") for kind in ("prompt", "generation")])


async def test_a_policys_schema_holds_the_decoder(
    engine: RealEngine, voices: list[Path], tmp_path: Path
) -> None:
    policies = {"assistant": FREE, "strict": policy("strict", VERDICT)}
    async with standing(tmp_path, engine, voices[:1], policies) as stand:
        (free,) = contents(await stand.ask(messages=HI))
        assert "verdict" not in free
        for stream in (False, True):
            answer = await stand.ask(model="strict", messages=HI, stream=stream)
            (text,) = contents(answer)
            assert list(json.loads(text)) == ["reason", "verdict"]
            assert json.loads(text)["verdict"] in ("pay", "hold")
            assert stand.house.outcome(answer).finish_reasons == ("stop",)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_cut_is_none(
    engine: RealEngine, voices: list[Path], tmp_path: Path, stream: bool
) -> None:
    policies = {"strict": policy("strict", VERDICT)}
    async with standing(tmp_path, engine, voices[:1], policies) as stand:
        answer = await stand.ask(model="strict", messages=HI, max_tokens=4, stream=stream)
        record = stand.house.outcome(answer)
        assert (record.status, record.code) == (422, "output_truncated")
        if stream:
            assert answer.events()[-1]["error"]["code"] == "output_truncated"
            assert b"[DONE]" not in answer.body
        else:
            assert (answer.status, answer.code) == (422, "output_truncated")


async def test_the_node_client(engine: RealEngine, voices: list[Path], tmp_path: Path) -> None:
    policies = {"assistant": FREE, "strict": policy("strict", VERDICT)}
    async with standing(tmp_path, engine, voices[:1], policies) as stand:
        said = await stand.directly(stand.versions[0], messages=HI, max_tokens=16)
        await node_suite.passes("vllm.test.js", TENON_URL=stand.url, TENON_KEY=stand.secret, SAID=said)
