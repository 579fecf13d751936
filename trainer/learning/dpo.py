"""Direct preference optimization (arXiv:2305.18290), with the likelihood of the chosen answer beside it."""

from typing import Any

from trainer.datasets import Pair
from trainer.learning.base import needed_libraries, surroundings
from trainer.learning.batches import arrange
from trainer.learning.job import Job, Learned
from trainer.learning.preferences import (
    answer_ids,
    make_sides,
    note_lengths,
    prove_pairs,
    supervised,
    watched,
)
from trainer.learning.session import arguments, finish, open_session
from trainer.learning.together import mine
from trainer.recipes.methods import DpoSettings


def learn(job: Job[DpoSettings, Pair]) -> Learned:
    """The reference is where training starts: the bare base, or ``job.start`` (TRL keeps a copy of it)."""
    settings = job.settings
    with surroundings(seed=job.seed), needed_libraries():
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        session = open_session(job)
        examples, sides = make_sides(
            session.tokenizer, job.rows, max_length=settings.max_length, file=job.file
        )
        known = note_lengths(job, [side.chosen for side in sides], [side.rejected for side in sides])
        order = arrange(
            [side.width for side in sides],
            steps=settings.steps * settings.gradient_accumulation,
            batch_size=settings.batch_size,
            seed=job.seed,
        )

        class Trainer(DPOTrainer):  # type: ignore[misc]  # trl is not followed, so it is Any
            def _prepare_dataset(self, dataset: Any, *rest: Any, **more: Any) -> Any:
                return dataset  # ids already

        with_sft = settings.sft_weight > 0
        trainer = Trainer(
            model=session.model,
            args=DPOConfig(
                **arguments(job, session),
                beta=settings.beta,
                loss_type=[settings.loss, "sft"] if with_sft else [settings.loss],
                loss_weights=[1.0, settings.sft_weight] if with_sft else [1.0],
                label_smoothing=settings.label_noise if settings.loss == "robust" else 0.0,
                max_length=None,
                train_sampling_strategy="sequential",
            ),
            train_dataset=Dataset.from_dict(
                {
                    "prompt_ids": [side.prompt_ids for side in sides],
                    "chosen_ids": [answer_ids(side.chosen) for side in sides],
                    "rejected_ids": [answer_ids(side.rejected) for side in sides],
                }
            ).select(order),
            processing_class=session.tokenizer,
            peft_config=session.peft_config,
        )
        proof = prove_pairs(
            session.tokenizer,
            examples,
            supervised(trainer.get_train_dataloader()),
            order=mine(order, settings.batch_size),
            batch_size=settings.batch_size // job.scale.processes,
        )
        # A hinge rests once every margin is wide enough.
        may_rest = settings.loss == "hinge" and not with_sft
        return watched(
            job,
            lambda watching: finish(watching, session, trainer, proof=proof.as_json(), may_rest=may_rest),
            key="rewards",
            cure="raise dpo.sft_weight or dpo.beta",
            known=known,
        )
