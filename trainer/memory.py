"""How much memory a training will need, before it needs it.

Calibrated on the demo base (CPU, float32): how far the resident set of a process rises in two steps, over the
estimate (without the base's own weights), is for SFT 1.18 (8 rows of 128 tokens), 1.19 (16 of 128), 1.15
(16 of 256), 0.99 (16 of 512) and 0.93 (32 of 256), for DPO 1.11 (8 pairs of 128), 1.15 (16 of 128) and 0.96
(16 of 256). No GPU was measured.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from registry import canonical
from registry.adapter_config import compiled, matching
from registry.tensors import read_header
from trainer.inputs import START
from trainer.methods import METHODS
from trainer.plan import Planned
from trainer.recipes.lora import LoraSettings
from trainer.recipes.methods import GrpoSettings, RlooSettings, Settings
from trainer.recipes.training import Sampling
from trainer.scale import Scale

_ADAM: Final = 16
"""Bytes for a trained parameter in float32: itself, its gradient and Adam's two moments."""
_NF4: Final = 0.516
"""Bytes for a weight in nf4 with double quantization: 4 and 0.127 bits (arXiv:2305.14314)."""
_LOGITS: Final = 4
"""Logits, their log-probabilities, the gradient and what TRL's entropy takes, in float32."""
_SURPLUS: Final = 1.5
"""What passes through beside the activations that are kept (measured, see above)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes, for each process of the training."""

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
        return sum(amount for _, amount in self.parts())

    def parts(self) -> Iterator[tuple[str, int]]:
        for field in fields(self):
            yield field.name, getattr(self, field.name)


@dataclass(frozen=True, slots=True)
class _Shape:
    """Widths, from the base's ``config.json``."""

    hidden: int
    layers: int
    queries: int
    key_values: int
    """Of keys (and of values)."""
    feed_forward: int
    vocabulary: int

    @property
    def activations(self) -> int:
        """Numbers that autograd keeps for a token and layer when only a LoRA is trained.

        Counted in transformers' Llama and Qwen layers: two norms and their outputs (8 hidden), queries
        through norm, rotation and attention and what comes out (7), keys and values before they are repeated
        for every head (6), and four of the feed-forward's width. Attention keeps no scores: a token in rows
        of 512 was measured to need no more than one in rows of 128.
        """
        attention = 7 * self.queries + 6 * self.key_values
        return 8 * self.hidden + attention + 4 * self.feed_forward


def estimate(planned: Planned, base_folder: Path, *, on_gpu: bool) -> Estimate:
    """float32 on a CPU, bfloat16 on a GPU."""
    plan, settings = planned.plan, planned.plan.settings
    shape = _shape(canonical.decode((base_folder / "config.json").read_bytes()))
    width = 2 if on_gpu else 4
    count = parameters(base_folder)
    linear = sum(math.prod(size) for size in planned.base.modules.values())
    quantized = plan.lora.quantization == "nf4"
    # PEFT keeps in float32 what it does not quantize.
    weights = linear * _NF4 + (count - linear) * 4 if quantized else count * width
    scale = Scale.of(plan.environment)
    rows = math.ceil(settings.batch_size / scale.processes)
    if METHODS[plan.method].shape == "pairs":
        rows *= 2
    tokens = rows * settings.max_length
    others = sum(parameters(model.base_folder) for role, model in planned.models.items() if role != START)
    sampling = getattr(settings, "sampling", None)
    return Estimate(
        base=int(weights / (scale.processes if scale.sharded else 1)),
        adapter=_ADAM * lora_parameters(plan.lora, planned.base.modules),
        activations=int(tokens * shape.layers * shape.activations * width * _SURPLUS),
        logits=tokens * shape.vocabulary * 4 * _LOGITS,
        other_models=others * width,
        cache=0 if sampling is None else _cache(settings, sampling, shape, width),
    )


def parameters(base_folder: Path) -> int:
    """Weights in the base's files; tied embeddings are stored, and counted, once."""
    return sum(
        math.prod(info.shape)
        for path in sorted(base_folder.glob("*.safetensors"))
        for info in read_header(path).values()
    )


def lora_parameters(lora: LoraSettings, modules: Mapping[str, Sequence[int]]) -> int:
    """What is trained. ``modules`` are the base's linear layers, (out features, in features)."""
    ranks = compiled(lora.rank_pattern)
    return sum(
        matching(ranks, name, lora.rank) * (outputs + inputs)
        for name, (outputs, inputs) in modules.items()
        if name.rpartition(".")[2] in lora.targets
    )


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
        queries=size * heads,
        key_values=size * int(text.get("num_key_value_heads") or heads),
        feed_forward=int(text["intermediate_size"]),
        vocabulary=int(text["vocab_size"]),
    )


def in_words(count: int) -> str:
    """``1.4 GiB``."""
    power = 0 if count < 1024 else min(4, int(math.log(count, 1024)))
    return f"{count / 1024**power:.1f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
