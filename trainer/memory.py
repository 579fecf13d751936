"""How much memory a training will need, before it needs it. An estimate: a factor of 1.5 either way is usual."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from registry import canonical
from registry.bases import TARGETS
from trainer.methods import METHODS
from trainer.plan import Plan
from trainer.recipes.methods import GrpoSettings, RlooSettings, Settings
from trainer.recipes.training import Sampling

_ADAM: Final = 16
"""Bytes for a trained parameter in float32: itself, its gradient and Adam's two moments."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes."""

    base: int
    adapter: int
    """With gradients and Adam's moments."""
    activations: int
    logits: int
    other_models: int
    """Teacher, reward models; the reference costs nothing, it is the base with the adapter put aside."""
    cache: int
    """Keys and values of answers while they are drawn."""

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class _Shape:
    hidden: int
    layers: int
    heads: int
    key_values: int
    """Width of keys (and of values)."""
    feed_forward: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.key_values
        return self.layers * (attention + 3 * self.hidden * self.feed_forward) + self.vocabulary * self.hidden


def estimate(plan: Plan, base_folder: Path, *, on_gpu: bool) -> Estimate:
    """From the base's ``config.json`` alone. Activations after Korthikanti et al. (arXiv:2205.05198): a layer
    keeps tokens x hidden x (34 + 5 heads x length / hidden) bytes in 16 bits, twice that in 32."""
    shape = _shape(canonical.decode((base_folder / "config.json").read_bytes()))
    settings = plan.settings
    width = 2 if on_gpu else 4
    weights = shape.parameters * (0.6 if plan.lora.quantization == "nf4" else width)
    tokens = settings.batch_size * settings.max_length
    sequences = 2 if METHODS[plan.method].shape == "pairs" else 1
    layer = tokens * shape.hidden * (34 + 5 * shape.heads * settings.max_length / shape.hidden)
    sampling = getattr(settings, "sampling", None)
    return Estimate(
        base=int(weights),
        adapter=_ADAM * _lora_parameters(plan, shape),
        activations=int(sequences * shape.layers * layer * width / 2),
        # Logits, their log-probabilities and the gradient, in float32.
        logits=sequences * tokens * shape.vocabulary * 4 * 3,
        other_models=int(len([role for role in plan.inputs if role != "start"]) * shape.parameters * width),
        cache=0 if sampling is None else _cache(settings, sampling, shape, width),
    )


def _lora_parameters(plan: Plan, shape: _Shape) -> int:
    wide = {
        "q_proj": (shape.hidden, shape.hidden),
        "k_proj": (shape.hidden, shape.key_values),
        "v_proj": (shape.hidden, shape.key_values),
        "o_proj": (shape.hidden, shape.hidden),
        "gate_proj": (shape.hidden, shape.feed_forward),
        "up_proj": (shape.hidden, shape.feed_forward),
        "down_proj": (shape.feed_forward, shape.hidden),
    }
    assert set(wide) == set(TARGETS)
    return shape.layers * plan.lora.largest_rank * sum(sum(wide[name]) for name in plan.lora.targets)


def _cache(settings: Settings, sampling: Sampling, shape: _Shape, width: int) -> int:
    answers = settings.batch_size
    if not isinstance(settings, GrpoSettings | RlooSettings):
        answers = max(answers, getattr(settings, "samples", 1))
    length = settings.max_length + sampling.max_new_tokens
    return answers * length * shape.layers * 2 * shape.key_values * width


def _shape(config: Any) -> _Shape:
    text = config.get("text_config", config)
    heads = int(text["num_attention_heads"])
    size = int(text.get("head_dim") or text["hidden_size"] // heads)
    return _Shape(
        hidden=int(text["hidden_size"]),
        layers=int(text["num_hidden_layers"]),
        heads=heads,
        key_values=size * int(text.get("num_key_value_heads") or heads),
        feed_forward=int(text["intermediate_size"]),
        vocabulary=int(text["vocab_size"]),
    )


def in_words(count: int) -> str:
    """``1.4 GiB``."""
    power = 0 if count < 1024 else min(4, int(math.log(count, 1024)))
    return f"{count / 1024**power:.1f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
