"""What a person may write in a recipe. A closed schema: a misspelt key must not mean a default."""

from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from registry.canonical import Document
from registry.evidence import GatePolicy, Rule
from registry.names import AdapterName, Name
from trainer.recipes.lora import LoraSettings
from trainer.recipes.methods import (
    DEFAULTS,
    REWARDED,
    TAUGHT,
    WHITE_BOX,
    BlackBoxSettings,
    CpoSettings,
    DistillSettings,
    DpoSettings,
    GkdSettings,
    GoldSettings,
    GrpoSettings,
    KtoSettings,
    MethodName,
    OrpoSettings,
    PpoSettings,
    ProcessRewardModelSettings,
    RewardModelSettings,
    RlooSettings,
    Settings,
    SftSettings,
    SimpoSettings,
    StarSettings,
)
from trainer.recipes.sources import AdapterSource, RewardSettings, Teacher
from trainer.recipes.training import DOCUMENTED

METRICS: Final = (
    "valid_json", "schema_valid", "copied", "policy", "verified", "exact", "words", "pair_accuracy",
    "step_accuracy", "step_balanced", "first_error",
)  # fmt: skip
"""What a gate of a recipe may ask; which of them a run measures depends on its method and its cases."""


def _bounded(rule: Rule) -> Rule:
    if rule.at_least is None and rule.over_base is None:
        raise ValueError("needs at_least, over_base or both")
    if rule.metric not in METRICS and not rule.metric.startswith("verifier."):
        raise ValueError(f"metric must be one of {', '.join(METRICS)} or verifier.<name>")
    return rule


class DataFiles(Document):
    """Where rows come from: files relative to the recipe (jsonl, csv, parquet), ``hf://datasets/owner/name/file``
    or ``s3://bucket/key``."""

    model_config = DOCUMENTED

    train: str = Field(min_length=1)
    """Rows of the shape that the method learns from (docs/guides/data.md)."""
    evaluation: str | None = Field(default=None, min_length=1)
    """Held-out cases. Without it, ``split`` of the training rows are held out and become the cases."""
    split: float = Field(default=0.1, gt=0, lt=1)
    """The share that is held out: which rows depends on what they ask, and on nothing else."""
    columns: dict[str, str | None] = Field(default_factory=dict)
    """What the file calls a column -> what Tenon does: ``{question: prompt, answer: completion}``. ``null``
    drops a column, and ``"*": null`` all that Tenon has no name for."""
    evaluation_columns: dict[str, str | None] = Field(default_factory=dict)
    """The same for the evaluation file: cases have other names (``answer`` is what a good one says)."""


class EvaluationSettings(Document):
    model_config = DOCUMENTED

    max_new_tokens: int = Field(default=128, ge=1, le=32768)
    """Longer answers are cut, as serving would cut them."""
    json_schema: str | None = Field(default=None, alias="schema", min_length=1)
    """A JSON Schema file, relative to the recipe; gives the metric ``schema_valid``."""
    batch_size: int = Field(default=64, ge=1, le=4096)
    """Answers made at a time."""
    verifiers: tuple[RewardSettings, ...] = ()
    """Measured of every held-out answer; the recipe's ``rewards`` when none are given."""


class GateSettings(Document):
    rules: tuple[Annotated[Rule, AfterValidator(_bounded)], ...] = Field(min_length=1)


class Recipe(Document):
    model_config = DOCUMENTED

    kind: Literal["tenon.recipe/v1"]
    """Always ``tenon.recipe/v1``."""
    tenant: Name
    """Whose adapter it will be."""
    adapter: Name
    """Its name: ``assistant`` of ``bank_a`` is ``bank_a/assistant``."""
    base: str = Field(min_length=1, max_length=200)
    """A registered base (``tenon base add``)."""
    method: MethodName
    """One of those below."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Decides order and initial weights."""
    data: DataFiles
    """What is learned and what is asked afterwards."""
    start: AdapterSource | None = None
    """The adapter that training continues; without it, a fresh one on the bare base. It is also the reference
    from which preference and RL methods measure their KL divergence."""
    teacher: Teacher | None = None
    """Who is imitated; distillation needs one."""
    rewards: tuple[RewardSettings, ...] = ()
    """What makes an answer good; reinforcement, self-training and distillation from answers need some."""
    lora: LoraSettings = LoraSettings()
    """The shape of the adapter."""
    sft: SftSettings | None = None
    dpo: DpoSettings | None = None
    orpo: OrpoSettings | None = None
    kto: KtoSettings | None = None
    cpo: CpoSettings | None = None
    simpo: SimpoSettings | None = None
    reward: RewardModelSettings | None = None
    process_reward: ProcessRewardModelSettings | None = None
    grpo: GrpoSettings | None = None
    rloo: RlooSettings | None = None
    ppo: PpoSettings | None = None
    gkd: GkdSettings | None = None
    distill: DistillSettings | None = None
    gold: GoldSettings | None = None
    black_box: BlackBoxSettings | None = None
    star: StarSettings | None = None
    evaluation: EvaluationSettings = EvaluationSettings()
    """How held-out answers are made and measured."""
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

    @field_validator(*get_args(MethodName))
    @classmethod
    def _of_this_method(cls, block: Settings | None, info: ValidationInfo) -> Settings | None:
        method = info.data.get("method")
        if block is not None and method is not None and info.field_name != method:
            raise ValueError(f"belongs to another method than {method}")
        return block

    @model_validator(mode="after")
    def _fits_its_method(self) -> Self:
        if self.method in REWARDED and not self.rewards:
            raise ValueError(f"rewards: {self.method} needs at least one")
        if self.method in TAUGHT and self.teacher is None:
            raise ValueError(f"teacher: {self.method} needs one")
        if self.method in WHITE_BOX and self.teacher is not None and self.teacher.endpoint is not None:
            raise ValueError(f"teacher: {self.method} reads a teacher's weights, an endpoint needs black_box")
        return self

    @property
    def settings(self) -> Settings:
        """The block of the method, or its defaults."""
        given: Settings | None = getattr(self, self.method)
        return DEFAULTS[self.method] if given is None else given

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
