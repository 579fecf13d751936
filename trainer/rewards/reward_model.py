"""Trained reward models as verifiers: an adapter's score of an answer, or of each of its steps."""

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from registry.canonical import Document
from trainer.datasets import Message
from trainer.rewards.kind import Kind, Resources
from trainer.rewards.verifier import Answer, Score, Verifier


class RewardModelSettings(Document):
    scale: Literal["score", "probability"] = "score"
    """The score itself, around 0; or between 0 and 1: how likely the answer is a good one."""
    batch_size: int = Field(default=32, ge=1, le=4096)


class ProcessRewardModelSettings(Document):
    pooling: Literal["min", "product", "mean", "last"] = "min"
    """From the steps' probabilities to one: an answer is as good as its worst step (arXiv:2305.20050)."""
    separator: str = Field(default="\n", min_length=1, max_length=16)
    batch_size: int = Field(default=32, ge=1, le=4096)


def _reward_model(settings: RewardModelSettings, resources: Resources) -> Verifier:
    base, adapter = _folders("reward_model", resources)
    scorer = _Once(base, adapter)

    def judge(answers: Sequence[Answer]) -> list[Score]:
        from trainer.learning.scoring import whole_answer

        model = scorer.get()
        rows = [whole_answer(model.tokenizer, *_conversation(answer)) for answer in answers]
        scores = [score for (score,) in model.scores(rows, batch_size=settings.batch_size)]
        return [_probability(score) if settings.scale == "probability" else score for score in scores]

    return judge


def _process_reward_model(settings: ProcessRewardModelSettings, resources: Resources) -> Verifier:
    base, adapter = _folders("process_reward_model", resources)
    scorer = _Once(base, adapter)
    pool = _POOLS[settings.pooling]

    def judge(answers: Sequence[Answer]) -> list[Score]:
        from trainer.learning.scoring import each_step, split_steps

        model = scorer.get()
        rows = []
        for answer in answers:
            prompt, text = _conversation(answer)
            steps = split_steps(text, settings.separator)
            rows.append(each_step(model.tokenizer, prompt, steps, settings.separator))
        found = model.scores(rows, batch_size=settings.batch_size)
        return [pool([_probability(score) for score in scores]) for scores in found]

    return judge


_POOLS: Final[dict[str, Callable[[list[float]], float]]] = {
    "min": min,
    "product": math.prod,
    "mean": lambda values: math.fsum(values) / len(values),
    "last": lambda values: values[-1],
}


class _Once:
    """The model is loaded when it is first asked: a plan is made without it."""

    def __init__(self, base: Path, adapter: Path) -> None:
        self._folders = (base, adapter)
        self._lock = threading.Lock()
        self._model: Any = None

    def get(self) -> Any:
        from trainer.learning.scoring import LocalScorer

        with self._lock:
            if self._model is None:
                self._model = LocalScorer(*self._folders)
            return self._model


def _folders(kind: str, resources: Resources) -> tuple[Path, Path]:
    if resources.base_folder is None or resources.adapter_folder is None:
        raise ValueError(f"{kind} needs a model: the version or recipe of a reward model")
    return resources.base_folder, resources.adapter_folder


def _conversation(answer: Answer) -> tuple[tuple[Message, ...], str]:
    """(what stands before, the last thing that was said)."""
    if answer.turns and answer.turns[-1].role == "assistant":
        return (*answer.case.prompt, *answer.turns[:-1]), answer.turns[-1].content
    return answer.case.prompt, answer.text


def _probability(score: float) -> float:
    return 1 / (1 + math.exp(-score)) if score > 0 else math.exp(score) / (1 + math.exp(score))


KINDS: Final = (
    Kind(
        "reward_model", "a trained reward model's score of the answer", RewardModelSettings, _reward_model,
        binary=False,
    ),
    Kind(
        "process_reward_model", "a trained process reward model's view of the answer's steps",
        ProcessRewardModelSettings, _process_reward_model, binary=False,
    ),
)  # fmt: skip
