"""What every method has in common: how long, how fast, how much at once."""

import math
from typing import Final, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from registry.canonical import Document

DOCUMENTED: Final = ConfigDict(use_attribute_docstrings=True)
"""What is said below a key is also its line in the reference (``make docs``)."""


class Training(Document):
    """Each method's settings extend this and give their own defaults. The defaults are for a LoRA: TRL's are
    meant for full fine-tuning, and at 1e-6 an adapter learns nothing."""

    model_config = DOCUMENTED

    steps: int = Field(default=60, ge=1, le=1_000_000)
    """Optimizer steps."""
    batch_size: int = Field(default=16, ge=1, le=4096)
    """Rows (pairs, answers) in one forward pass."""
    gradient_accumulation: int = Field(default=1, ge=1, le=4096)
    """Forward passes before one optimizer step."""
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    """At its highest, after the warm-up."""
    max_length: int = Field(default=512, ge=8, le=1_048_576)
    """Tokens a row may have. Longer rows are refused, never cut."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps in which the rate rises from nothing."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How it falls again."""

    @field_validator("warmup_steps")
    @classmethod
    def _warm_before_the_end(cls, warmup: int, info: ValidationInfo) -> int:
        # On the field, not the model: a model's validator is skipped once any field has failed.
        if warmup >= info.data.get("steps", math.inf):
            raise ValueError(f"must be less than steps ({info.data['steps']})")
        return warmup

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps


class Sampling(Document):
    """How answers are drawn while training."""

    model_config = DOCUMENTED

    temperature: float = Field(default=1.0, gt=0, le=10)
    """1 draws from the model's own distribution."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the likeliest tokens that together reach this probability."""
    max_new_tokens: int = Field(default=128, ge=1, le=32768)
    """Longer answers are cut."""
