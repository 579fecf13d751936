"""Supervised fine-tuning of a LoRA with TRL, on rows and an order that were decided beforehand."""

from collections.abc import Sequence
from typing import Any

from trainer.datasets import Conversation, examples
from trainer.learning.base import needed_libraries, surroundings
from trainer.learning.batches import arrange
from trainer.learning.job import Job, Learned
from trainer.learning.masks import prove
from trainer.learning.packing import pack, unpacked
from trainer.learning.rows import Row, make_rows
from trainer.learning.session import Session, arguments, finish, open_session
from trainer.learning.together import mine
from trainer.recipes.methods import SftSettings
from trainer.recipes.training import Training


def learn(job: Job[SftSettings, Conversation]) -> Learned:
    """Train an adapter and save it to ``job.out``.

    The masks are proven on the trainer's own batches before the first step. On one machine, the same job
    gives the same bytes. Raises the leaves of TrainingRefused, and TrainingDiverged.
    """
    with surroundings(seed=job.seed):
        session = open_session(job)
        return imitate(job, session, job.rows, packing=job.settings.packing == "bfd")


def imitate(
    job: Job[Any, Any], session: Session, rows: Sequence[Conversation], *, packing: bool = False
) -> Learned:
    """Supervised learning of ``rows`` with the job's settings: methods that write their own data end here."""
    settings: Training = job.settings
    what = examples(tuple(rows))
    ready = make_rows(session.tokenizer, what, max_length=settings.max_length, file=job.file)
    lengths = [len(row.input_ids) for row in ready]
    weights = [example.weight for example in what]
    passes = settings.steps * settings.gradient_accumulation
    if packing:
        packs = pack(
            lengths,
            packs=passes * settings.batch_size,
            capacity=settings.max_length,
            seed=job.seed,
            weights=weights,
        )
    else:
        order = arrange(lengths, steps=passes, batch_size=settings.batch_size, seed=job.seed, weights=weights)
        packs = [[row] for row in order]
    trainer = _trainer(job, session, ready, packs, packing=packing)
    batches = trainer.get_train_dataloader()
    proof = prove(
        session.tokenizer,
        what,
        unpacked(batches) if packing else batches,
        order=[row for one in mine(packs, settings.batch_size) for row in one],
    )
    return finish(job, session, trainer, proof=proof.as_json(), cross_entropy="loss")


def _trainer(
    job: Job[Any, Any],
    session: Session,
    rows: Sequence[Row],
    packs: Sequence[Sequence[int]],
    *,
    packing: bool,
) -> Any:
    with needed_libraries():
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

    columns: dict[str, Any] = {
        "input_ids": [[token for row in one for token in rows[row].input_ids] for one in packs],
        "labels": [[label for row in one for label in rows[row].labels] for one in packs],
    }
    if packing:
        columns["seq_lengths"] = [[len(rows[row].input_ids) for row in one] for one in packs]
    settings: Training = job.settings
    config = SFTConfig(
        **arguments(job, session),
        # The rows are tokenised, labelled and in order: TRL must neither cut, mask nor shuffle them.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=settings.max_length if packing else None,
        packing=packing,
        packing_strategy="bfd",
        train_sampling_strategy="sequential",
        shuffle_dataset=False,
    )
    return SFTTrainer(
        model=session.model,
        args=config,
        train_dataset=Dataset.from_dict(columns),
        processing_class=session.tokenizer,
        peft_config=session.peft_config,
    )
