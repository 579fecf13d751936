"""CPO (arXiv:2401.08417), SimPO (2405.14734) and ORPO (2403.07691): preferences without a reference model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from trainer.datasets import Pair
from trainer.learning.base import needed_libraries, surroundings
from trainer.learning.batches import arrange
from trainer.learning.job import Job, Learned
from trainer.learning.preferences import (
    Sides,
    make_sides,
    note_lengths,
    prove_pairs,
    supervised,
    watched,
)
from trainer.learning.session import Session, arguments, finish, open_session
from trainer.recipes.methods import CpoSettings, SimpoSettings

Make = Callable[[Session, dict[str, Any], Any], Any]
"""(session, common arguments, ready rows) -> a trainer of TRL."""


def learn(job: Job[CpoSettings, Pair]) -> Learned:
    settings = job.settings
    return without_reference(
        job,
        lambda session, common, rows: _trainer(
            session,
            {
                **common,
                "loss_type": settings.loss,
                "beta": settings.beta,
                "cpo_alpha": settings.sft_weight,
            },
            rows,
        ),
        cure="raise cpo.sft_weight",
        # A hinge rests once every margin is wide enough.
        may_rest=settings.loss == "hinge" and not settings.sft_weight,
    )


def learn_simpo(job: Job[SimpoSettings, Pair]) -> Learned:
    settings = job.settings
    return without_reference(
        job,
        lambda session, common, rows: _trainer(
            session,
            {
                **common,
                "loss_type": "simpo",
                "beta": settings.beta,
                "simpo_gamma": settings.gamma,
                "cpo_alpha": settings.sft_weight,
            },
            rows,
        ),
        cure="raise simpo.sft_weight or lower simpo.gamma",
    )


def _trainer(session: Session, config: dict[str, Any], rows: Any) -> Any:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    class Trainer(CPOTrainer):  # type: ignore[misc]  # trl is not followed, so it is Any
        tokenize_row = staticmethod(as_it_is)

    return Trainer(
        model=session.model,
        args=CPOConfig(**config),
        train_dataset=rows,
        processing_class=session.tokenizer,
        peft_config=session.peft_config,
    )


def as_it_is(row: dict[str, Any]) -> dict[str, Any]:
    """In place of TRL's own rendering of a row: ours are ids already."""
    return row


def without_reference(job: Job[Any, Pair], make: Make, *, cure: str, may_rest: bool = False) -> Learned:
    """What these three have in common: TRL's rows, their order, the proof and the watching."""
    settings = job.settings
    with surroundings(seed=job.seed), needed_libraries():
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
        common = {
            **arguments(job, session),
            "max_length": settings.max_length,  # nothing is longer; TRL cuts at 1,024 when it is not told
            "train_sampling_strategy": "sequential",
            "remove_unused_columns": False,
        }
        with _without_bars():
            trainer = make(session, common, _rows(sides).select(order))
        proof = prove_pairs(
            session.tokenizer,
            examples,
            supervised(trainer.get_train_dataloader()),
            order=order,
            batch_size=settings.batch_size,
        )
        return watched(
            job,
            lambda watching: finish(
                watching, session, trainer, proof=proof.as_json(), cross_entropy="nll_loss", may_rest=may_rest
            ),
            key="logps",
            cure=cure,
            known=known,
        )


@contextmanager
def _without_bars() -> Iterator[None]:
    """TRL walks over the rows three times to find that they are ready, each time with a bar on stderr."""
    from datasets.utils.logging import (
        disable_progress_bar,
        enable_progress_bar,
        is_progress_bar_enabled,
    )

    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()


def _rows(sides: Sequence[Sides]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(
        {
            f"{name}_{column}": values
            for name, rows in (
                ("chosen", [side.chosen for side in sides]),
                ("rejected", [side.rejected for side in sides]),
            )
            for column, values in (
                ("input_ids", [list(row.input_ids) for row in rows]),
                ("attention_mask", [[1] * len(row.input_ids) for row in rows]),
                ("labels", [list(row.labels) for row in rows]),
            )
        }
    )
