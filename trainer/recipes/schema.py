"""What a person may write in a recipe. A closed schema: a misspelt key must not mean a default."""

import math
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from registry.canonical import Document
from registry.evidence import GatePolicy, Rule
from registry.names import AdapterName, Name

METRICS: Final = ("valid_json", "schema_valid", "copied", "policy")

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""``registry.bases.TARGETS``, as a type; intake refuses other layers (``lm_head`` among them)."""


def _expand(value: Any) -> Any:
    """``all-linear`` is spelt out, so that the plan's digest does not depend on what PEFT means by it."""
    if value == "all-linear":
        return get_args(Target)
    return tuple(value) if isinstance(value, list) else value


def _in_order(targets: tuple[Target, ...]) -> tuple[Target, ...]:
    if len(set(targets)) != len(targets):
        raise ValueError("must name each layer once")
    return tuple(target for target in get_args(Target) if target in targets)


def _bounded(rule: Rule) -> Rule:
    if rule.at_least is None and rule.over_base is None:
        raise ValueError("needs at_least, over_base or both")
    if rule.metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}")
    return rule


class DataFiles(Document):
    """JSONL files, relative to the recipe."""

    train: str = Field(min_length=1)
    evaluation: str = Field(min_length=1)


class LoraSettings(Document):
    rank: int = Field(default=8, ge=1, le=512)
    alpha: float = Field(default=16.0, gt=0, le=4096)
    targets: Annotated[
        tuple[Target, ...],
        Field(min_length=1),
        AfterValidator(_in_order),
        BeforeValidator(_expand, json_schema_input_type=Literal["all-linear"] | tuple[Target, ...]),
    ] = get_args(Target)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    rslora: bool = False


class SftSettings(Document):
    """Defaults are for a LoRA: TRL's own are meant for full fine-tuning and teach an adapter nothing."""

    steps: int = Field(ge=1, le=1_000_000)
    batch_size: int = Field(default=16, ge=1, le=4096)
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    max_length: int = Field(default=512, ge=8, le=1_048_576)
    """Tokens a row may have. Longer rows are refused, never cut."""
    warmup_steps: int = Field(default=5, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"

    @field_validator("warmup_steps")
    @classmethod
    def _warm_before_the_end(cls, warmup: int, info: ValidationInfo) -> int:
        # On the field, not the model: a model's validator is skipped once any field has failed.
        if warmup >= info.data.get("steps", math.inf):
            raise ValueError(f"must be less than steps ({info.data['steps']})")
        return warmup


class EvaluationSettings(Document):
    max_new_tokens: int = Field(default=128, ge=1, le=32768)
    json_schema: str | None = Field(default=None, alias="schema", min_length=1)
    """A JSON Schema file, relative to the recipe; gives the metric ``schema_valid``."""
    batch_size: int = Field(default=64, ge=1, le=4096)


class GateSettings(Document):
    rules: tuple[Annotated[Rule, AfterValidator(_bounded)], ...] = Field(min_length=1)


class Recipe(Document):
    kind: Literal["tenon.recipe/v1"]
    tenant: Name
    adapter: Name
    base: str = Field(min_length=1, max_length=200)
    method: Literal["sft"]
    seed: int = Field(default=0, ge=0, lt=2**32)
    data: DataFiles
    lora: LoraSettings = LoraSettings()
    sft: SftSettings
    evaluation: EvaluationSettings = EvaluationSettings()
    gate: GateSettings | None = None
    """What the promotion will ask of this adapter. Without it, the registry's own gate decides."""

    @field_validator("gate")
    @classmethod
    def _schema_for_its_metric(cls, gate: GateSettings | None, info: ValidationInfo) -> GateSettings | None:
        evaluation = info.data.get("evaluation")
        asked = gate is not None and any(rule.metric == "schema_valid" for rule in gate.rules)
        if asked and evaluation is not None and evaluation.json_schema is None:
            raise ValueError("asks for schema_valid, so evaluation.schema must name a file")
        return gate

    @property
    def name(self) -> AdapterName:
        return AdapterName(self.tenant, self.adapter)

    def gate_policy(self) -> GatePolicy:
        """The gate as the registry judges by it; without rules it refuses everything."""
        return GatePolicy(name=self.adapter, rules=self.gate.rules if self.gate else ())


def json_schema() -> dict[str, Any]:
    """The recipe as JSON Schema, for editors and the reference page."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Recipe.model_json_schema(by_alias=True),
    }
