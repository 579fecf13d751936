"""What every method has in common: how long, how fast, how much at once."""

import math
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from registry.canonical import Document


class Training(Document):
    """Each method's settings extend this and give their own defaults. The defaults are for a LoRA: TRL's are
    meant for full fine-tuning, and at 1e-6 an adapter learns nothing."""

    steps: int = Field(default=60, ge=1, le=1_000_000)
    """Optimizer steps."""
    batch_size: int = Field(default=16, ge=1, le=4096)
    """Rows (pairs, answers) in one forward pass."""
    gradient_accumulation: int = Field(default=1, ge=1, le=4096)
    """Forward passes before one optimizer step."""
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    max_length: int = Field(default=512, ge=8, le=1_048_576)
    """Tokens a row may have. Longer rows are refused, never cut."""
    warmup_steps: int = Field(default=0, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"

    @field_validator("warmup_steps")
    @classmethod
    def _warm_before_the_end(cls, warmup: int, info: ValidationInfo) -> int:
        # On the field, not the model: a model's validator is skipped once any field has failed.
        if warmup >= info.data.get("steps", math.inf):
            raise ValueError(f"must be less than steps ({info.data['steps']})")
        return warmup


class Sampling(Document):
    """How answers are drawn while training."""

    temperature: float = Field(default=1.0, gt=0, le=10)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=128, ge=1, le=32768)
