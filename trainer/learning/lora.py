"""The recipe's LoRA as PEFT's."""

from typing import Any

from trainer.errors import NoLinearTargets
from trainer.learning.base import needed_libraries
from trainer.recipes.lora import LoraSettings


def lora_config(settings: LoraSettings) -> Any:
    """Only what vLLM serves: no bias, no DoRA, no saved modules, the default initialisation."""
    with needed_libraries():
        from peft import LoraConfig
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=list(settings.targets),
        rank_pattern=dict(settings.rank_pattern),
        alpha_pattern=dict(settings.alpha_pattern),
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        bias="none",
        task_type="CAUSAL_LM",
    )


def check_targets(model: Any, settings: LoraSettings) -> None:
    """Every target must exist in the base: PEFT only complains when none of them does."""
    present = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if missing := [target for target in settings.targets if target not in present]:
        raise NoLinearTargets(f"this base has no layer named {', '.join(missing)}", missing=missing)
