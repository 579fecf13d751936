"""Group relative policy optimization with TRL, under the names that papers gave its variants.

TRL computes the loss, the KL term and the step. The answers are drawn and rewarded here, so that prompts are
rendered and answers read exactly as serving and evaluation do, and groups can be replaced or mixed.
"""

from collections.abc import Sequence
from typing import Any, Final

from trainer.datasets import Case
from trainer.environments import ENVIRONMENTS
from trainer.learning.base import needed_libraries, surroundings
from trainer.learning.drawing import Draw, Drawing, Drawn, arrange_prompts
from trainer.learning.dynamic_sampling import DynamicSampling
from trainer.learning.games import Table
from trainer.learning.job import Job, Learned
from trainer.learning.luffy import Mixed, demonstrations, luffy_trainer
from trainer.learning.monitors import Monitor
from trainer.learning.on_policy import drawn_trainer, prompt_dataset
from trainer.learning.remembered import MONITORED
from trainer.learning.rewarding import Overlong
from trainer.learning.rollouts import Prompt, Sampler, make_prompts
from trainer.learning.session import Session, arguments, finish, open_session
from trainer.recipes.methods import GrpoSettings

PRESETS: Final[dict[str, dict[str, Any]]] = {
    "grpo": {"loss_type": "grpo", "scale_rewards": "group"},
    # Neither the answer's length nor the group's spread scales a gradient (arXiv:2503.20783).
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    "dapo": {
        "loss_type": "dapo",
        "scale_rewards": "group",
        "epsilon_high": 0.28,
        "mask_truncated_completions": True,
    },
    # Clips whole answers, whose ratios lie far closer to 1 than those of tokens (arXiv:2507.18071, 5.1).
    "gspo": {
        "loss_type": "grpo",
        "scale_rewards": "group",
        "importance_sampling_level": "sequence",
        "epsilon": 3e-4,
        "epsilon_high": 4e-4,
    },
    "luffy": {"loss_type": "dr_grpo", "scale_rewards": "none"},
}


def learn(job: Job[GrpoSettings, Case]) -> Learned:
    """Raises the leaves of TrainingRefused, DataInvalid, VerifierFailed and TrainingDiverged."""
    with surroundings(seed=job.seed):
        session = open_session(job)
        prompts = _prompts(job, session)
        sampler = Sampler(session.tokenizer, job.settings.sampling)
        monitor = Monitor(job.rewards, job.note, file=job.scratch / MONITORED)
        counts = {"replaced": 0, "left": 0}
        mixed = _mixed(job, sampler, session) if job.settings.preset == "luffy" else None
        draw = _draw(job, sampler, prompts, mixed, counts)
        trainer = _trainer(job, session, prompts, draw, monitor, mixed)
        learned = finish(job, session, trainer, proof={}, stride=job.settings.iterations, may_rest=True)
    proof: dict[str, Any] = {
        "preset": job.settings.preset,
        "prompts": len(prompts),
        **monitor.proof(),
    }
    if job.settings.preset == "dapo":
        proof["groups"] = counts
    return Learned(learned.folder, proof)


def _prompts(job: Job[GrpoSettings, Case], session: Session) -> tuple[Prompt, ...]:
    settings = job.settings
    if settings.environment is not None:
        ENVIRONMENTS[settings.environment].check(job.rows, job.file)
    return make_prompts(
        session.tokenizer, job.rows, file=job.file, room=_room(settings), max_length=settings.max_length
    )


def _room(settings: GrpoSettings) -> int:
    """Tokens that may stand behind a prompt: of an answer, or of a whole game."""
    longest = settings.sampling.max_new_tokens
    if settings.environment is None:
        return longest
    return ENVIRONMENTS[settings.environment].room(longest)


def _draw(
    job: Job[GrpoSettings, Case],
    sampler: Sampler,
    prompts: Sequence[Prompt],
    mixed: Mixed | None,
    counts: dict[str, int],
) -> Draw:
    settings = job.settings
    ask = sampler.answer
    if settings.environment is not None:
        ask = Table(sampler, ENVIRONMENTS[settings.environment], settings.sampling.max_new_tokens).play
    elif mixed is not None:
        ask = mixed.ask
    if settings.preset != "dapo":
        return Drawing(ask, job.rewards)

    def told(replaced: int, left: int) -> None:
        counts["replaced"] += replaced
        counts["left"] += left

    return DynamicSampling(
        Drawing(ask, job.rewards, Overlong(settings.sampling.max_new_tokens)),
        prompts,
        settings.group_size,
        settings.resample,
        job.seed,
        told,
    )


def _mixed(job: Job[GrpoSettings, Case], sampler: Sampler, session: Session) -> Mixed:
    settings = job.settings
    answers = demonstrations(
        session.tokenizer,
        job.rows,
        file=job.file,
        room=settings.sampling.max_new_tokens,
        max_length=settings.max_length,
    )
    return Mixed(sampler, answers, settings.group_size, min(settings.off_policy, settings.group_size - 1))


def _trainer(
    job: Job[GrpoSettings, Case],
    session: Session,
    prompts: Sequence[Prompt],
    draw: Draw,
    monitor: Monitor,
    mixed: Mixed | None,
) -> Any:
    with needed_libraries():
        from trl import GRPOConfig, GRPOTrainer

    settings = job.settings
    clips = {"epsilon": settings.clip, "epsilon_high": settings.clip_high}
    given = {name: clip for name, clip in clips.items() if clip is not None}
    config = GRPOConfig(
        **arguments(job, session),
        **PRESETS[settings.preset] | given,
        beta=settings.kl,
        num_generations=settings.group_size,
        num_iterations=settings.iterations,
        max_completion_length=_room(settings),
        temperature=settings.sampling.temperature,
        top_p=settings.sampling.top_p,
        shuffle_dataset=False,  # the order is decided here, so that a crash cannot change it
        disable_dropout=True,
    )
    drawn = Drawn(settings.group_size)
    draws = -(-settings.steps // settings.iterations)
    at_once = settings.batch_size * settings.gradient_accumulation // settings.group_size
    order = arrange_prompts(len(prompts), wanted=draws * at_once, seed=job.seed)
    kind = drawn_trainer(GRPOTrainer, drawn, draw, prompts, monitor)
    if mixed is not None:
        kind = luffy_trainer(kind, mixed=mixed, gamma=settings.shaping)

    def rollout(_: Any, trainer: Any) -> dict[str, Any]:
        found = {"prompt_ids": drawn.prompt_ids(), "completion_ids": drawn.said(), "logprobs": None}
        masks = drawn.own()
        return found if masks is None else {**found, "env_mask": masks}

    return kind(
        model=session.model,
        args=config,
        train_dataset=prompt_dataset(order),
        processing_class=session.tokenizer,
        peft_config=session.peft_config,
        reward_funcs=[lambda **_: drawn.totals()],
        rollout_func=rollout,
    )
