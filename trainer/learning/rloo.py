"""REINFORCE leave-one-out with TRL: each answer's baseline is the mean of the others to its prompt, and the
KL divergence is taken off the reward (arXiv:2402.14740)."""

from typing import Any

from trainer.datasets import Case
from trainer.learning.base import needed_libraries, surroundings
from trainer.learning.drawing import Drawing, Drawn, arrange_prompts
from trainer.learning.job import Job, Learned
from trainer.learning.monitors import Monitor
from trainer.learning.on_policy import drawn_trainer, prompt_dataset
from trainer.learning.remembered import MONITORED
from trainer.learning.rollouts import Sampler, make_prompts
from trainer.learning.session import arguments, finish, open_session
from trainer.recipes.methods import RlooSettings


def learn(job: Job[RlooSettings, Case]) -> Learned:
    """Raises the leaves of TrainingRefused, VerifierFailed and TrainingDiverged."""
    settings = job.settings
    with surroundings(seed=job.seed):
        with needed_libraries():
            from trl import RLOOConfig, RLOOTrainer

        session = open_session(job)
        prompts = make_prompts(
            session.tokenizer,
            job.rows,
            file=job.file,
            room=settings.sampling.max_new_tokens,
            max_length=settings.max_length,
        )
        monitor = Monitor(job.rewards, job.note, file=job.scratch / MONITORED)
        drawn = Drawn(settings.group_size)
        drawing = Drawing(Sampler(session.tokenizer, settings.sampling).answer, job.rewards)
        kind = _reading(drawn_trainer(RLOOTrainer, drawn, drawing, prompts, monitor), drawn)
        at_once = settings.batch_size * settings.gradient_accumulation // settings.group_size
        trainer = kind(
            model=session.model,
            args=RLOOConfig(
                **arguments(job, session),
                epsilon=settings.clip,
                beta=settings.kl,
                num_generations=settings.group_size,
                max_completion_length=settings.sampling.max_new_tokens,
                temperature=settings.sampling.temperature,
                top_p=settings.sampling.top_p,
                shuffle_dataset=False,
                disable_dropout=True,
            ),
            train_dataset=prompt_dataset(
                arrange_prompts(len(prompts), wanted=settings.steps * at_once, seed=job.seed)
            ),
            processing_class=session.tokenizer,
            peft_config=session.peft_config,
            reward_funcs=[lambda **_: drawn.totals()],
        )
        learned = finish(job, session, trainer, proof={}, may_rest=True)
    return Learned(learned.folder, {"prompts": len(prompts), **monitor.proof()})


def _reading(base: Any, drawn: Drawn) -> Any:
    """RLOOTrainer has no ``rollout_func``: this is the one place that it generates in."""

    class RlooTrainer(base):  # type: ignore[misc]  # TRL is not followed, so it is Any
        def _generate(self, prompts: Any) -> Any:
            said = drawn.said()
            return drawn.prompt_ids(), said, [""] * len(said)

    return RlooTrainer
