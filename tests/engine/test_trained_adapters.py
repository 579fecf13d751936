"""What methods leave behind is served by a real vLLM as what was trained: reward models and options too."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from registry.digests import Digest
from registry.fingerprint import EXACT_F32, Fingerprint
from registry.names import engine_name
from server.demo.build_base import SHIPPED_BASE
from server.engines.attest import Observation, judge_together, observe
from server.engines.client import VllmClient
from tests.engine.conftest import RealEngine, fresh
from trainer.datasets import Conversation, Message, Pair
from trainer.learning.job import Job
from trainer.learning.methods import LEARN
from trainer.learning.scoring import LocalScorer, Scored, verdict_tokens, whole_answer
from trainer.package import package
from trainer.recipes import LoraSettings, SftSettings
from trainer.recipes.methods import RewardModelSettings

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("engine"),
]

QUESTIONS = tuple(
    (Message("user", f"Please transfer {40 + number}.50 EUR to Norvik Ltd."),) for number in range(16)
)
RIGHT, WRONG = '{"approval":"second_approval"}', '{"approval":"manual_review"}'
PAIRS = tuple(Pair(prompt, RIGHT, WRONG, line) for line, prompt in enumerate(QUESTIONS, start=1))
CONVERSATIONS = tuple(
    Conversation((*prompt, Message("assistant", RIGHT)), line)
    for line, prompt in enumerate(QUESTIONS, start=1)
)


@dataclass(frozen=True, slots=True)
class Trained:
    version: Digest
    folder: Path
    fingerprint: Fingerprint


def trained(
    engine: RealEngine, place: Path, rows: Sequence[Any], settings: Any, lora: LoraSettings | None = None
) -> Trained:
    from trainer.learning.fingerprint import TenantPrompt, make_fingerprint

    job: Job[Any, Any] = Job(
        settings=settings, rows=tuple(rows), file="rows", base_folder=SHIPPED_BASE,
        lora=lora or LoraSettings(rank=8), seed=3, out=place / "raw", scratch=place / "scratch",
    )  # fmt: skip
    base = engine.base.identity()
    package(LEARN[settings.method](job).folder, place / "adapter", base=base, base_name="demo")
    prompts = [TenantPrompt(prompt, RIGHT) for prompt in QUESTIONS]
    fingerprint = make_fingerprint(base, SHIPPED_BASE, place / "adapter", prompts)
    return Trained(fresh(str(place)), place / "adapter", fingerprint)


async def look(client: VllmClient, one: Trained) -> Observation:
    await client.load(engine_name(one.version), one.folder)
    return await observe(
        client,
        version=one.version,
        fingerprint=one.fingerprint,
        files=(),
        salt=f"probe-{one.version.hex}",
    )


async def test_every_shape_of_adapter_is_attested_exactly(engine: RealEngine, tmp_path: Path) -> None:
    settings = SftSettings(steps=3, batch_size=8, learning_rate=5e-3)
    made = [
        trained(engine, tmp_path / str(number), CONVERSATIONS, settings, LoraSettings.model_validate(lora))
        for number, lora in enumerate(
            (
                {"rank": 8, "targets": "attention", "rslora": True},
                {
                    "rank": 4,
                    "targets": "mlp",
                    "rank_pattern": {"up_proj": 8},
                    "alpha_pattern": {"down_proj": 32},
                },
                {"rank": 8, "quantization": "nf4"},
            )
        )
    ]
    async with engine.client() as client:
        seen = []
        for one in made:
            await client.load(engine_name(one.version), one.folder)
            seen.append(
                await observe(
                    client,
                    version=one.version,
                    fingerprint=one.fingerprint,
                    files=(),
                    salt=f"probe-{one.version.hex}",
                )
            )
        findings = judge_together(seen, dtype="float32")
        for one in made:
            await client.unload(engine_name(one.version))
    for finding in findings.values():
        assert finding.strength == "exact", finding.reason
        assert finding.own_distance < EXACT_F32


async def test_a_reward_model_is_an_adapter_that_any_client_can_ask_for_its_score(
    engine: RealEngine, tmp_path: Path
) -> None:
    """The score of docs/decisions/0003, once from the trainer and once over HTTP."""
    one = trained(engine, tmp_path, PAIRS, RewardModelSettings(steps=12, batch_size=8))
    local = LocalScorer(SHIPPED_BASE, one.folder)
    rows = [
        whole_answer(local.tokenizer, prompt, text) for prompt in QUESTIONS[:3] for text in (RIGHT, WRONG)
    ]
    expected = [scores[0] for scores in local.scores(rows)]
    assert all(right > wrong for right, wrong in zip(expected[::2], expected[1::2], strict=True))
    async with engine.client() as client:
        name = engine_name(one.version)
        await client.load(name, one.folder)
        seen = await observe(
            client,
            version=one.version,
            fingerprint=one.fingerprint,
            files=(),
            salt=f"probe-{one.version.hex}",
        )
        assert judge_together([seen], dtype="float32")[one.version].strength == "exact"
        asked = [await score(engine, name, row, verdict_tokens(local.tokenizer)) for row in rows]
        await client.unload(name)
    assert asked == pytest.approx(expected, abs=2e-4)


async def score(engine: RealEngine, name: str, row: Scored, tokens: tuple[int, int]) -> float:
    """log p("1") - log p("0") behind the answer. Each is made the only token that may come next: the server
    reports the log-probability that it had among all others. (``prompt_logprobs`` would kill a LoRA engine.)
    """
    found = []
    async with aiohttp.ClientSession() as session:
        for token in tokens:
            body = {
                "model": name,
                "prompt": list(row.input_ids),
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": 0,
                "allowed_token_ids": [token],
                "cache_salt": f"score-{name}",
            }
            async with session.post(f"{engine.spec.url}/v1/completions", json=body) as answer:
                assert answer.status == 200, await answer.text()
                found.append((await answer.json())["choices"][0]["logprobs"]["token_logprobs"][0])
    return float(found[0] - found[1])
