"""The client against the fake engine; tests/engine runs the same calls against a real vLLM."""

from pathlib import Path
from typing import Any

import pytest

from server.engines.client import VllmClient
from server.engines.errors import EngineAnswerUnusable, EngineLoadFailed, EngineUnreachable
from server.testing.fake_engine import Faults
from server.testing.fake_model import fake_logprobs, toy_token_ids
from tests.unit.server.engines.serving import adapter, serve

TALK = ({"role": "user", "content": "hé"},)


async def test_an_engine_is_asked_for_its_version_models_and_health(tmp_path: Path) -> None:
    async with serve() as (_, url), VllmClient(url) as client:
        assert await client.answers()
        assert await client.health()
        assert await client.version() == "0.32.0"
        assert await client.models() == {"tenon-base": "/base"}
        folder, _ = adapter(tmp_path / "a", seed=1)
        await client.load("tenon-a", folder)
        assert await client.models() == {"tenon-base": "/base", "tenon-a": str(folder)}
        await client.unload("tenon-a")
        assert await client.models() == {"tenon-base": "/base"}


async def test_refused_loads_carry_the_status(tmp_path: Path) -> None:
    async with serve() as (fake, url), VllmClient(url) as client:
        folder, _ = adapter(tmp_path / "a", seed=1)
        await client.load("tenon-a", folder)
        with pytest.raises(EngineLoadFailed, match="already been loaded") as twice:
            await client.load("tenon-a", folder)
        assert twice.value.facts["status"] == 400
        with pytest.raises(EngineLoadFailed) as missing:
            await client.load("tenon-b", tmp_path / "nowhere")
        assert missing.value.facts["status"] == 404
        with pytest.raises(EngineLoadFailed):
            await client.unload("tenon-c")
        assert [path for path, _ in fake.seen] == []


async def test_a_probe_reads_the_twenty_likeliest_tokens_in_order(tmp_path: Path) -> None:
    async with serve() as (fake, url), VllmClient(url) as client:
        folder, weights = adapter(tmp_path / "a", seed=1)
        await client.load("tenon-a", folder)
        prompts = [(1, 2, 3), (4, 5)]
        tables = await client.probe(model="tenon-a", prompts=prompts, cache_salt="s")
        assert tables == tuple(fake_logprobs(weights, prompt)[:20] for prompt in prompts)
        _, body = fake.seen[-1]
        assert body["cache_salt"] == "s"
        assert "prompt_logprobs" not in body
        assert "echo" not in body


async def test_long_probes_leave_room_for_others_between_them(tmp_path: Path) -> None:
    async with serve() as (fake, url), VllmClient(url) as client:
        folder, weights = adapter(tmp_path / "a", seed=1)
        await client.load("tenon-a", folder)
        short = [(number,) * 100 for number in range(64)]
        long = [(1,) * 5000, (2,) * 3000, (3,) * 193, (4,) * 8000, (5,) * 8192, (6, 7)]
        for prompts in (short, long):
            tables = await client.probe(model="tenon-a", prompts=prompts, cache_salt="s")
            assert tables == tuple(fake_logprobs(weights, prompt)[:20] for prompt in prompts)
        asked = [[len(prompt) for prompt in body["prompt"]] for _, body in fake.seen]
        assert asked == [[100] * 64, [5000, 3000], [193], [8000], [8192], [2]]
        assert {body["cache_salt"] for _, body in fake.seen} == {"s"}


@pytest.mark.parametrize(("lengths", "limits"), [([24] * 8, [30]), ([8192, 24], [120, 30]), ([4096], [60])])
async def test_long_probes_have_longer_to_be_answered(
    lengths: list[int], limits: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that is slow at one tenant's long probes is not taken for hung."""
    allowed: list[float | None] = []
    ask = VllmClient._call

    async def noting(self: VllmClient, *given: Any, limit: float | None = None) -> tuple[int, bytes]:
        allowed.append(limit)
        return await ask(self, *given, limit=limit)

    async with serve() as (_, url), VllmClient(url) as client:
        folder, _ = adapter(tmp_path / "a", seed=1)
        await client.load("tenon-a", folder)
        client.limit(30)
        monkeypatch.setattr(VllmClient, "_call", noting)
        await client.probe(model="tenon-a", prompts=[(1,) * length for length in lengths], cache_salt="s")
    assert allowed == limits


async def test_an_answer_that_claims_another_model_is_unusable(tmp_path: Path) -> None:
    async with serve(faults=Faults(model_lie="tenon-b")) as (_, url), VllmClient(url) as client:
        folder, _ = adapter(tmp_path / "a", seed=1)
        await client.load("tenon-a", folder)
        with pytest.raises(EngineAnswerUnusable, match="another model"):
            await client.probe(model="tenon-a", prompts=[(1,)], cache_salt="s")


async def test_errors_of_the_engine_are_unusable_answers(tmp_path: Path) -> None:
    async with serve(faults=Faults(unusable_probe=True)) as (_, url), VllmClient(url) as client:
        folder, _ = adapter(tmp_path / "a", seed=1)
        await client.load("tenon-a", folder)
        with pytest.raises(EngineAnswerUnusable, match="500"):
            await client.probe(model="tenon-a", prompts=[(1,)], cache_salt="s")
        with pytest.raises(EngineAnswerUnusable, match="404"):
            await client.probe(model="tenon-z", prompts=[(1,)], cache_salt="s")


async def test_tokens_are_those_of_the_chat_template() -> None:
    async with serve() as (_, url), VllmClient(url) as client:
        for prompt in (True, False):
            ids = await client.tokenize(TALK, add_generation_prompt=prompt, model="tenon-base")
            assert ids == toy_token_ids(TALK, add_generation_prompt=prompt)


async def test_silence_is_unreachable_not_unusable() -> None:
    async with serve(faults=Faults(silent=True)) as (_, url), VllmClient(url, timeout=0.1) as client:
        with pytest.raises(EngineUnreachable):
            await client.version()
    async with VllmClient(url) as client:
        assert not await client.answers()
        assert not await client.health()
        with pytest.raises(EngineUnreachable):
            await client.probe(model="tenon-a", prompts=[(1,)], cache_salt="s")
