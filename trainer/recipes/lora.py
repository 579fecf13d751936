"""The shape of the adapter: what PEFT may make of it, bounded by what vLLM serves."""

from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from registry.adapter_config import keys_fault
from registry.canonical import Document
from trainer.recipes.training import DOCUMENTED

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""``registry.bases.TARGETS``, as a type; intake refuses other layers (``lm_head`` among them)."""

_GROUPS: Final = {
    "all-linear": get_args(Target),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}

Rank = Annotated[int, Field(ge=1, le=64)]
"""Up to what a registry takes and engines are sized for unless they are told otherwise."""
Alpha = Annotated[float, Field(gt=0, le=4096)]


def _expand(value: Any) -> Any:
    """A group is spelt out, so that the plan's digest does not depend on what PEFT means by it."""
    if isinstance(value, str) and value in _GROUPS:
        return _GROUPS[value]
    return tuple(value) if isinstance(value, list) else value


def _in_order(targets: tuple[Target, ...]) -> tuple[Target, ...]:
    if len(set(targets)) != len(targets):
        raise ValueError("must name each layer once")
    return tuple(target for target in get_args(Target) if target in targets)


def _served(patterns: dict[str, Any]) -> dict[str, Any]:
    """Intake refuses other keys, and then all the training was for nothing."""
    if (fault := keys_fault(patterns)) is not None:
        raise ValueError(f"has {fault}")
    return patterns


class LoraSettings(Document):
    model_config = DOCUMENTED

    rank: Rank = 8
    """Width of the adapter's matrices; 64 at most."""
    alpha: Alpha = 16.0
    """Its scale: what it adds is multiplied by alpha / rank."""
    targets: Annotated[
        tuple[Target, ...],
        Field(min_length=1),
        AfterValidator(_in_order),
        BeforeValidator(
            _expand, json_schema_input_type=Literal["all-linear", "attention", "mlp"] | tuple[Target, ...]
        ),
    ] = get_args(Target)
    """``all-linear``, ``attention``, ``mlp`` or a list of layer names."""
    rank_pattern: Annotated[dict[str, Rank], AfterValidator(_served)] = Field(default_factory=dict)
    r"""Another rank for the modules whose name ends so: ``{"layers.0.self_attn.q_proj": 16, v_proj: 4}``.
    Of at most 240 keys, the first that matches counts. A key may be a simple expression:
    ``layers\.[0-3]\..*_proj``. It holds names, ``.``, ``*``, ``+``, ``?``, alternatives in groups, ``\.``,
    ``\d`` and sets like ``[0-9]``."""
    alpha_pattern: Annotated[dict[str, Alpha], AfterValidator(_served)] = Field(default_factory=dict)
    """Another scale, with keys of the same kind."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of inputs that the adapter does not see in a step."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) (arXiv:2312.03732) instead of alpha / rank."""
    quantization: Literal["none", "nf4"] = "none"
    """``nf4``: QLoRA (arXiv:2305.14314), the base in 4 bits while training, not while serving."""

    @property
    def largest_rank(self) -> int:
        return max([self.rank, *self.rank_pattern.values()])
