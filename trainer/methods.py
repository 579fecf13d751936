"""What the rest of the trainer must know of each method; how it learns is in ``trainer.learning``."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from trainer.datasets import Shape
from trainer.recipes.methods import MethodName

Family: TypeAlias = Literal[
    "supervised", "preference", "reward", "reinforcement", "distillation", "self-training"
]


@dataclass(frozen=True, slots=True)
class Method:
    name: MethodName
    title: str
    family: Family
    shape: Shape
    """Of its training rows."""
    scores: bool = False
    """Whether what it trains scores answers (a reward model) instead of giving them."""


METHODS: Final[dict[MethodName, Method]] = {
    method.name: method
    for method in (
        Method("sft", "supervised fine-tuning", "supervised", "conversations"),
        Method("dpo", "direct preference optimization", "preference", "pairs"),
        Method("orpo", "odds-ratio preference optimization", "preference", "pairs"),
        Method("kto", "Kahneman-Tversky optimization", "preference", "labelled"),
        Method("cpo", "contrastive preference optimization", "preference", "pairs"),
        Method("simpo", "simple preference optimization", "preference", "pairs"),
        Method("reward", "outcome reward model", "reward", "pairs", scores=True),
        Method("process_reward", "process reward model", "reward", "steps", scores=True),
        Method("grpo", "group relative policy optimization", "reinforcement", "cases"),
        Method("rloo", "REINFORCE leave-one-out", "reinforcement", "cases"),
        Method("ppo", "proximal policy optimization", "reinforcement", "cases"),
        Method("gkd", "offline white-box distillation", "distillation", "conversations"),
        Method("distill", "on-policy white-box distillation", "distillation", "cases"),
        Method("gold", "white-box distillation across tokenizers", "distillation", "conversations"),
        Method("black_box", "distillation from a teacher's answers", "distillation", "cases"),
        Method("star", "self-training on verified answers", "self-training", "cases"),
    )
}
