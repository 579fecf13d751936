"""Kahneman-Tversky optimization (arXiv:2402.01306): single answers, each wanted or not."""

from collections.abc import Sequence
from random import Random
from typing import Any, Final

from trainer.datasets import Example, Labelled
from trainer.errors import MaskBroken, TrainingRefused
from trainer.learning.base import needed_libraries, surroundings
from trainer.learning.job import Job, Learned
from trainer.learning.masks import prove
from trainer.learning.preferences import (
    answer_ids,
    labelled_example,
    note_lengths,
    supervised,
    watched,
)
from trainer.learning.rows import Row, make_rows
from trainer.learning.session import Session, arguments, finish, open_session
from trainer.recipes.methods import KtoSettings

_BALANCED: Final = (1.0, 1.5)
"""What the weighted number of wanted answers should be for one unwanted (the paper's section 4.2)."""


def learn(job: Job[KtoSettings, Labelled]) -> Learned:
    """The reference is where training starts. Raises TrainingRefused when only one label occurs."""
    settings = job.settings
    _check_labels(job)
    with surroundings(seed=job.seed), needed_libraries():
        session = open_session(job)
        examples = tuple(labelled_example(row) for row in job.rows)
        rows = make_rows(session.tokenizer, examples, max_length=settings.max_length, file=job.file)
        labels = [row.label for row in job.rows]
        wanted, others = (
            [row for row, label in zip(rows, labels, strict=True) if label is side] for side in (True, False)
        )
        known = note_lengths(job, wanted, others)
        order = interleave(
            labels,
            wanted=settings.steps * settings.gradient_accumulation * settings.batch_size,
            seed=job.seed,
        )
        mismatched = mismatch(order, settings.batch_size)
        trainer = _trainer(job, session, rows, labels, order, mismatched)
        proof = prove(session.tokenizer, examples, supervised(trainer.get_train_dataloader()), order=order)
        _prove_labels(trainer.get_train_dataloader(), [labels[place] for place in order])
        if settings.loss == "kto":
            crossed = [
                Example(examples[own].prompt, examples[other].answer, examples[own].line)
                for own, other in zip(order, mismatched, strict=True)
            ]
            prove(
                session.tokenizer,
                crossed,
                supervised(trainer.get_train_dataloader(), prefix="KL_"),
                order=range(len(order)),
            )
        return watched(
            job,
            lambda watching: finish(watching, session, trainer, proof=proof.as_json()),
            key="rewards",
            cure="lower kto.undesirable_weight or raise kto.beta",
            known=known,
        )


def interleave(labels: Sequence[bool], *, wanted: int, seed: int) -> list[int]:
    """``wanted`` places of rows: shuffled in every pass, both labels spread evenly over it.

    TRL reads KTO's rows as they lie, and files are often sorted: a batch with one label only has nothing to
    compare. Rows are not grouped by length either, for the two labels often differ in it.
    """
    random = Random(f"kto:{seed}")  # noqa: S311 - an order, not a secret
    stream: list[int] = []
    while len(stream) < wanted:
        spread: list[tuple[float, int]] = []
        for side in (True, False):
            places = [place for place, label in enumerate(labels) if label is side]
            random.shuffle(places)
            shift = random.random()
            spread += [((turn + shift) / len(places), place) for turn, place in enumerate(places)]
        stream += [place for _, place in sorted(spread)]
    return stream[:wanted]


def mismatch(order: Sequence[int], batch_size: int) -> list[int]:
    """For each sample, whose answer estimates the KL term: its neighbour's in the same batch (TRL's rule)."""
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [place for batch in batches for place in (batch[-1], *batch[:-1])]


def _check_labels(job: Job[KtoSettings, Labelled]) -> None:
    wanted = sum(row.label for row in job.rows)
    others = len(job.rows) - wanted
    if not wanted or not others:
        label = "true" if wanted else "false"
        raise TrainingRefused(
            f"{job.file}: every label is {label}", hint="kto needs wanted and unwanted answers"
        )
    ratio = job.settings.desirable_weight * wanted / (job.settings.undesirable_weight * others)
    if not _BALANCED[0] <= ratio <= _BALANCED[1]:
        job.note(
            f"{job.file}: with these weights wanted answers count {ratio:.2f} times what unwanted do; "
            f"{_BALANCED[0]:g} to {_BALANCED[1]:g} is sound (kto.desirable_weight, kto.undesirable_weight)"
        )


def _trainer(
    job: Job[KtoSettings, Labelled],
    session: Session,
    rows: Sequence[Row],
    labels: Sequence[bool],
    order: Sequence[int],
    mismatched: Sequence[int],
) -> Any:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    class Trainer(KTOTrainer):  # type: ignore[misc]  # trl is not followed, so it is Any
        def _prepare_dataset(self, dataset: Any, *rest: Any, **more: Any) -> Any:
            return dataset  # ids already, with their KL counterparts

    settings = job.settings
    columns: dict[str, list[Any]] = {
        "prompt_ids": [list(rows[place].input_ids[: rows[place].prompt]) for place in order],
        "completion_ids": [answer_ids(rows[place]) for place in order],
        "label": [labels[place] for place in order],
    }
    if settings.loss == "kto":
        columns["KL_completion_ids"] = [answer_ids(rows[place]) for place in mismatched]
    return Trainer(
        model=session.model,
        args=KTOConfig(
            **arguments(job, session),
            beta=settings.beta,
            loss_type=settings.loss,
            desirable_weight=settings.desirable_weight,
            undesirable_weight=settings.undesirable_weight,
            max_length=None,
            train_sampling_strategy="sequential",
        ),
        train_dataset=Dataset.from_dict(columns),
        processing_class=session.tokenizer,
        peft_config=session.peft_config,
    )


def _prove_labels(batches: Any, expected: Sequence[bool]) -> None:
    fed = [bool(label) for batch in batches for label in batch["label"].tolist()]
    if fed != list(expected):
        raise MaskBroken("the labels that reach the model are not those of the rows")
