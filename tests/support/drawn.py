"""Jobs of reinforcement learning on the tiny base, whose answers are noise: rewards that noise can raise."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.digests import Digest
from trainer.datasets import Case, Message
from trainer.learning.job import Job
from trainer.learning.methods import LEARN
from trainer.recipes.lora import LoraSettings
from trainer.recipes.methods import Settings
from trainer.recipes.training import Sampling
from trainer.rewards import Answer, Reward, each

SAMPLING = Sampling(max_new_tokens=8)
CASES = tuple(
    Case(
        f"case-{number}",
        (Message("user", f"Pay {number}.50 EUR"),),
        number + 1,
        answer=f"ok {number}",
    )
    for number in range(6)
)


def letters(answer: Answer) -> float:
    """Share of letters: random text has some, and can learn to have more."""
    return sum(letter.isalpha() for letter in answer.text) / max(1, len(answer.text))


LETTERS = Reward("letters", 1.0, each(letters), binary=False)


@dataclass
class Learning:
    """What a job learned, its figures and notes."""

    out: Path
    proof: dict[str, Any]
    steps: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def rewards(self) -> list[float]:
        return [step["reward"] for step in self.steps if "reward" in step]

    def digest(self) -> Digest:
        return Digest.of_file(self.out / "adapter_model.safetensors")


class Crash(BaseException):
    """Nothing that training code catches."""


def learn(
    settings: Settings,
    base_folder: Path,
    place: Path,
    *,
    rows: tuple[Case, ...] = CASES,
    rewards: tuple[Reward, ...] = (LETTERS,),
    seed: int = 7,
    start: Path | None = None,
    crash_after: int | None = None,
    snapshot_every: float = 1e9,
) -> Learning:
    """With ``crash_after``, the process of that step dies; the next call with the same place picks it up."""
    learning = Learning(place / "raw", {})

    def on_step(step: int, figures: dict[str, float]) -> None:
        if step == crash_after:
            raise Crash
        learning.steps.append({"step": step, **figures})

    job: Job[Any, Any] = Job(
        settings=settings,
        rows=rows,
        file="questions.jsonl",
        base_folder=base_folder,
        lora=LoraSettings(rank=4, alpha=8),
        seed=seed,
        out=place / "raw",
        scratch=place / "scratch",
        snapshot_every=snapshot_every,
        start=start,
        rewards=rewards,
        on_step=on_step,
        note=learning.notes.append,
    )
    learn_it: Callable[[Job[Any, Any]], Any] = LEARN[settings.method]
    learning.proof = learn_it(job).proof
    return learning


def write_loud_base(base_folder: Path, folder: Path, *, contrast: float = 8) -> Path:
    """The tiny base with eight times the contrast: as it is, no adapter could make one word twice as likely
    as another. With none, it finds all of them equally likely for ever."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(base_folder, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= contrast
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
