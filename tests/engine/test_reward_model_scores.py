"""A reward model's score, asked of a real engine, is the score that was trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from registry.names import engine_name
from server.demo.build_base import SHIPPED_BASE
from server.demo.tasks import preference
from tests.engine.conftest import RealEngine, fresh
from tests.support.tiny_model import write_jsonl
from trainer.datasets import load_rows
from trainer.learning import reward
from trainer.learning.job import Job
from trainer.learning.scoring import LocalScorer, verdict_tokens, whole_answer
from trainer.package import package
from trainer.recipes import LoraSettings
from trainer.recipes.methods import RewardModelSettings

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),  # the first test also waits for the engine's start
    pytest.mark.xdist_group("engine"),  # one worker, and so one engine, for all of them
]


async def test_an_engine_gives_the_score_that_was_trained(engine: RealEngine, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "pairs.jsonl", preference.flawed_pairs(20, 3))
    pairs = load_rows(file, shape="pairs").rows
    job: Job[Any, Any] = Job(
        settings=RewardModelSettings(steps=4, batch_size=4, learning_rate=5e-3, max_length=256),
        rows=pairs, file="pairs.jsonl", base_folder=SHIPPED_BASE, lora=LoraSettings(), seed=1,
        out=tmp_path / "raw", scratch=tmp_path / "scratch",
    )  # fmt: skip
    saved = reward.learn(job).folder
    package(saved, tmp_path / "adapter", base=engine.base.identity(), base_name=engine.base.name)
    scorer = LocalScorer(SHIPPED_BASE, tmp_path / "adapter")
    rows = [
        whole_answer(scorer.tokenizer, pair.prompt, text)
        for pair in pairs[:4]
        for text in (pair.chosen, pair.rejected)
    ]
    name = engine_name(fresh("reward model"))
    async with engine.client() as client:
        await client.load(name, tmp_path / "adapter")
    tokens = verdict_tokens(scorer.tokenizer)
    asked = [await _score(engine, name, row.input_ids, tokens) for row in rows]
    ours = [score for (score,) in scorer.scores(rows)]
    assert asked == pytest.approx(ours, abs=1e-3)
    bare = [score for (score,) in scorer.scores(rows, adapter=False)]
    assert max(abs(one - other) for one, other in zip(ours, bare, strict=True)) > 0.1


async def _score(engine: RealEngine, model: str, ids: Sequence[int], tokens: tuple[int, int]) -> float:
    """As docs/decisions/0003 says: one new token, and the log-probabilities of two."""
    body = {
        "model": model,
        "prompt": list(ids),
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 2,
        "logprob_token_ids": list(tokens),
        "return_tokens_as_token_ids": True,
    }
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{engine.spec.url}/v1/completions", json=body) as response,
    ):
        assert response.status == 200, await response.text()
        answer = await response.json()
    found = answer["choices"][0]["logprobs"]["top_logprobs"][0]
    good, bad = (float(found[f"token_id:{token}"]) for token in tokens)
    return good - bad
