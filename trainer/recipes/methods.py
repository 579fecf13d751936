"""The settings of every method, one class each; a recipe's block is called after its method.

Sources: DPO arXiv:2305.18290, ORPO 2403.07691, KTO 2402.01306, CPO 2401.08417, SimPO 2405.14734, process
reward models 2305.20050, GRPO 2402.03300, Dr. GRPO 2503.20783, DAPO 2503.14476, GSPO 2507.18071, LUFFY
2504.14945, RLOO 2402.14740, PPO 1707.06347, GKD 2306.13649, STaR 2203.14465, ReST 2308.08998.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from trainer.recipes.training import Sampling, Training


class SftSettings(Training):
    method: Literal["sft"] = "sft"
    packing: Literal["none", "bfd"] = "none"
    """``bfd`` lays rows end to end up to ``max_length`` (best fit, decreasing) without letting them see each
    other. TRL's ``wrapped`` does let them, so it is not offered."""


class DpoSettings(Training):
    method: Literal["dpo"] = "dpo"
    batch_size: int = Field(default=8, ge=1, le=4096)
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    beta: float = Field(default=0.3, gt=0, le=100)
    """How strongly the adapter is held to where it started: higher moves less."""
    sft_weight: float = Field(default=1.0, ge=0, le=100)
    """Weight of the likelihood of the chosen answer beside the preference loss. Without it the demo's
    adapters copied 1 % of the payees and amounts instead of 93 %, at a training accuracy of 1.0."""
    loss: Literal["sigmoid", "hinge", "ipo", "robust", "apo_zero", "apo_down"] = "sigmoid"
    """The preference loss, as TRL calls it."""
    label_noise: float = Field(default=0.1, ge=0, lt=0.5)
    """``robust``: the share of pairs expected to stand the wrong way round (arXiv:2403.00409)."""


class OrpoSettings(Training):
    method: Literal["orpo"] = "orpo"
    batch_size: int = Field(default=8, ge=1, le=4096)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    beta: float = Field(default=0.1, gt=0, le=100)
    """Weight of the odds ratio beside the likelihood (lambda in the paper)."""


class KtoSettings(Training):
    method: Literal["kto"] = "kto"
    batch_size: int = Field(default=16, ge=2, le=4096)
    """At least 2: an answer's KL term is estimated with its neighbour's."""
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    beta: float = Field(default=0.3, gt=0, le=100)
    """How strongly the adapter is held to where it started: higher moves less."""
    desirable_weight: float = Field(default=1.0, gt=0, le=100)
    """Of wanted answers; raise it when they are few."""
    undesirable_weight: float = Field(default=1.0, gt=0, le=100)
    """Of unwanted ones."""
    loss: Literal["kto", "apo_zero_unpaired"] = "kto"
    """The loss, as TRL calls it."""


class CpoSettings(Training):
    method: Literal["cpo"] = "cpo"
    batch_size: int = Field(default=8, ge=1, le=4096)
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    beta: float = Field(default=0.1, gt=0, le=100)
    """Scale of the difference of the two log-probabilities; there is no reference."""
    sft_weight: float = Field(default=1.0, ge=0, le=100)
    """Weight of the likelihood of the chosen answer."""
    loss: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    """The preference loss, as TRL calls it."""


class SimpoSettings(Training):
    method: Literal["simpo"] = "simpo"
    batch_size: int = Field(default=8, ge=1, le=4096)
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    beta: float = Field(default=2.0, gt=0, le=100)
    """Scale of the difference of the mean log-probabilities; there is no reference."""
    gamma: float = Field(default=0.5, ge=0, le=100)
    """Target margin between the mean log-probabilities of chosen and rejected."""
    sft_weight: float = Field(default=1.0, ge=0, le=100)
    """Weight of the likelihood of the chosen answer."""


class RewardModelSettings(Training):
    """The score is log p("1") - log p("0") behind the answer: such a reward model is an ordinary LoRA,
    served, attested and asked like any other adapter (docs/decisions/0003)."""

    method: Literal["reward"] = "reward"
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    centering: float = Field(default=0.01, ge=0, le=1)
    """Pulls the mean score to zero (arXiv:2312.09244)."""


class ProcessRewardModelSettings(Training):
    """One score behind every step, learned from a label for each."""

    method: Literal["process_reward"] = "process_reward"
    separator: str = Field(default="\n", min_length=1, max_length=16)
    """What stands between two steps of an answer."""
    balanced: bool = True
    """Wrong steps count as much as right ones in all: most files hold few of them."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1)


class _OnPolicy(Training):
    """``batch_size`` answers a step, drawn from the model that is being trained."""

    batch_size: int = Field(default=64, ge=1, le=4096)
    steps: int = Field(default=30, ge=1, le=1_000_000)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    sampling: Sampling = Sampling()
    """How answers are drawn."""
    kl: float = Field(default=0.02, ge=0, le=100)
    """Weight of the KL divergence from the reference, which is where training started."""


class _Grouped(_OnPolicy):
    group_size: int = Field(default=8, ge=2, le=1024)
    """Answers to one prompt, compared with each other."""

    @field_validator("group_size")
    @classmethod
    def _whole_groups(cls, size: int, info: ValidationInfo) -> int:
        answers = info.data.get("batch_size", size) * info.data.get("gradient_accumulation", 1)
        if answers % size:
            text = f"batch_size * gradient_accumulation = {answers}"
            raise ValueError(f"must divide the answers of a step ({text})")
        return size


class GrpoSettings(_Grouped):
    method: Literal["grpo"] = "grpo"
    preset: Literal["grpo", "dr_grpo", "dapo", "gspo", "luffy"] = "dr_grpo"
    """Which of the published losses, with its own clipping, scaling and sampling."""
    iterations: int = Field(default=1, ge=1, le=64)
    """Optimizer steps on one set of answers."""
    clip: float | None = Field(default=None, gt=0, lt=1)
    """How far a token's (gspo: an answer's) probability may move in one step, downwards."""
    clip_high: float | None = Field(default=None, gt=0, lt=10)
    """The same, upwards. The preset decides where one is not given: 0.2 on both sides, dapo 0.28 above, gspo
    3e-4 and 4e-4."""
    resample: int = Field(default=4, ge=0, le=64)
    """dapo: further draws to replace groups whose rewards are all equal, before the step goes on without."""
    off_policy: int = Field(default=1, ge=1, le=64)
    """luffy: members of each group that are the row's own ``answer`` instead of a sample."""
    shaping: float = Field(default=0.1, gt=0, le=10)
    """luffy: gamma of the policy shaping p / (p + gamma)."""
    environment: Literal["twenty_questions"] | None = None
    """Play whole games against a simulated partner instead of answering single prompts."""


class RlooSettings(_Grouped):
    method: Literal["rloo"] = "rloo"
    clip: float = Field(default=0.2, gt=0, lt=1)
    """How far a token's probability may move on one set of answers."""


class PpoSettings(_OnPolicy):
    method: Literal["ppo"] = "ppo"
    epochs: int = Field(default=2, ge=1, le=64)
    """Passes over one set of answers."""
    minibatches: int = Field(default=1, ge=1, le=256)
    """Optimizer steps of one pass."""
    clip: float = Field(default=0.2, gt=0, lt=1)
    """How far a token's probability may move on one set of answers."""
    value_clip: float = Field(default=0.2, gt=0, le=100)
    """How far the predicted return of a token may move on one set of answers."""
    value_weight: float = Field(default=0.0, ge=0, le=100)
    """Share of the value loss's gradient that reaches the adapter; the head learns in any case. At 0.1 it
    outweighed the policy's a hundredfold on the demo base, and one answer in four was no JSON any more."""
    discount: float = Field(default=1.0, gt=0, le=1)
    """Worth of a reward one token later (gamma)."""
    gae_lambda: float = Field(default=1.0, ge=0, le=1)
    """Between one-step estimates (0) and whole returns (1) of how good a token was. The reward stands behind
    the last: at 0.95 a tenth of it is left 45 tokens before, where the demo's answers decide."""
    whiten: bool = True
    """Bring the advantages of a step to mean 0 and deviation 1."""


class _Taught(Training):
    temperature: float = Field(default=1.0, gt=0, le=100)
    """Divides both models' logits before they are compared: above 1, unlikely tokens count for more."""
    divergence: float = Field(default=0.0, ge=0, le=1)
    """0 forward KL, 1 reverse KL, between: generalized Jensen-Shannon."""


class GkdSettings(_Taught):
    """White-box, offline: the teacher's distributions on the data's own answers."""

    method: Literal["gkd"] = "gkd"
    on_policy: float = Field(default=0.0, ge=0, le=1)
    """Share of batches whose answers the student writes itself (lambda in the paper)."""
    sampling: Sampling = Sampling()
    """How it writes them."""


class DistillSettings(_Taught):
    """White-box, on-policy: the student answers, the teacher scores every token."""

    method: Literal["distill"] = "distill"
    divergence: float = Field(default=1.0, ge=0, le=1)
    sampling: Sampling = Sampling()
    """How the student's answers are drawn."""


class GoldSettings(_Taught):
    """White-box across tokenizers (GOLD), offline: the distributions are aligned wherever both tokenizers
    have a token border. Tokens that both vocabularies have are compared one by one, the others by rank."""

    method: Literal["gold"] = "gold"


class BlackBoxSettings(Training):
    """Sequence-level distillation: the teacher's answers that the verifiers accept become training data."""

    method: Literal["black_box"] = "black_box"
    samples: int = Field(default=1, ge=1, le=64)
    """Answers asked for each question."""
    keep: Literal["all", "best", "shortest"] = "best"
    """Which of a question's accepted answers are learned."""
    sampling: Sampling = Sampling(temperature=0.7)
    """How the teacher's answers are drawn."""
    least: int = Field(default=32, ge=1)
    """Fewer accepted answers than this stop the run."""


class StarSettings(Training):
    """STaR/ReST: sample, keep what the verifiers accept, learn it, again. ``steps`` are one round's."""

    method: Literal["star"] = "star"
    rounds: int = Field(default=2, ge=1, le=100)
    """Times that answers are drawn and learned. 1 is best-of-N fine-tuning."""
    samples: int = Field(default=8, ge=1, le=1024)
    """Answers drawn for each question and round."""
    keep: Literal["all", "best", "shortest"] = "best"
    """Which of a question's accepted answers are learned."""
    sampling: Sampling = Sampling()
    """How answers are drawn."""
    pass_rate: tuple[float, float] = (0.0, 1.0)
    """Questions are learned only if the share of their accepted answers lies between these (both included,
    but never 0): what is always right teaches little."""
    fresh: bool = True
    """Every round starts from the start again (STaR) instead of from the round before (ReST)."""
    least: int = Field(default=32, ge=1)
    """Fewer accepted answers than this in any round stop the run."""

    @property
    def total_steps(self) -> int:
        return self.steps * self.rounds


MethodName = Literal[
    "sft", "dpo", "orpo", "kto", "cpo", "simpo", "reward", "process_reward", "grpo", "rloo", "ppo", "gkd",
    "distill", "gold", "black_box", "star",
]  # fmt: skip

Settings = Annotated[
    SftSettings
    | DpoSettings
    | OrpoSettings
    | KtoSettings
    | CpoSettings
    | SimpoSettings
    | RewardModelSettings
    | ProcessRewardModelSettings
    | GrpoSettings
    | RlooSettings
    | PpoSettings
    | GkdSettings
    | DistillSettings
    | GoldSettings
    | BlackBoxSettings
    | StarSettings,
    Field(discriminator="method"),
]

REWARDED: Final = frozenset({"grpo", "rloo", "ppo", "black_box", "star"})
"""Methods that need ``rewards``."""
TAUGHT: Final = frozenset({"gkd", "distill", "gold", "black_box"})
"""Methods that need a ``teacher``."""
WHITE_BOX: Final = TAUGHT - {"black_box"}
"""Methods that need its weights."""

DEFAULTS: Final[dict[str, Settings]] = {
    settings.model_fields["method"].default: settings()
    for settings in (
        SftSettings, DpoSettings, OrpoSettings, KtoSettings, CpoSettings, SimpoSettings, RewardModelSettings,
        ProcessRewardModelSettings, GrpoSettings, RlooSettings, PpoSettings, GkdSettings, DistillSettings,
        GoldSettings, BlackBoxSettings, StarSettings,
    )
}  # fmt: skip
