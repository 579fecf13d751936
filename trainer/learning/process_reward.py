"""A process reward model (arXiv:2305.20050): is each step of an answer right? TRL has none.

One score behind every step, trained with binary cross-entropy on its label; as a plain LoRA, like the outcome
reward model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.datasets import Example, Message, Steps
from trainer.errors import DataInvalid, Fault, MaskBroken
from trainer.learning.base import needed_libraries, surroundings
from trainer.learning.batches import arrange
from trainer.learning.job import Job, Learned
from trainer.learning.reward import as_causal, padding, scoring_session
from trainer.learning.rows import decode, make_rows, render
from trainer.learning.scoring import Scored, each_step
from trainer.learning.session import arguments, finish
from trainer.recipes.methods import ProcessRewardModelSettings

UNSCORED = -1.0
"""The label of a token at which no step ends."""


@dataclass(frozen=True, slots=True)
class Ready:
    row: Scored
    labels: tuple[bool, ...]


def learn(job: Job[ProcessRewardModelSettings, Steps]) -> Learned:
    settings = job.settings
    refuse_separators(job.rows, settings.separator, job.file)
    with surroundings(seed=job.seed), needed_libraries():
        session = scoring_session(job, every_token=True)
        ready = make_ready(session.tokenizer, job.rows, settings, job.file)
        order = arrange(
            [len(one.row.input_ids) for one in ready],
            steps=settings.steps * settings.gradient_accumulation,
            batch_size=settings.batch_size,
            seed=job.seed,
        )
        model = session.model
        if session.peft_config is not None:
            from peft import get_peft_model

            model = get_peft_model(model, session.peft_config)
        pad = session.tokenizer.convert_tokens_to_ids(padding(session.tokenizer))
        trainer = _trainer(
            model,
            {**arguments(job, session), "train_sampling_strategy": "sequential"},
            [ready[place] for place in order],
            pad=pad,
            weights=_weights(ready) if settings.balanced else (1.0, 1.0),
        )
        proof = _prove(session.tokenizer, job.rows, trainer.get_train_dataloader(), order, settings.separator)
        learned = finish(job, session, trainer, proof=proof)
        as_causal(learned.folder)
        return learned


def refuse_separators(rows: Sequence[Steps], separator: str, file: str) -> None:
    """Raise DataInvalid: a step with the separator in it would be two steps once somebody splits the text."""
    faults = tuple(
        Fault(f"{file}:{row.line}", f"step {number} has the separator {separator!r} in it")
        for row in rows
        for number, step in enumerate(row.completions, start=1)
        if separator in step
    )
    if faults:
        raise DataInvalid(file, faults)


def make_ready(
    tokenizer: Any, rows: Sequence[Steps], settings: ProcessRewardModelSettings, file: str
) -> list[Ready]:
    """Raises what ``make_rows`` does: too long, control tokens, a template that changes the answer."""
    separator = settings.separator
    make_rows(
        tokenizer, [_example(row, separator) for row in rows], max_length=settings.max_length, file=file
    )
    return [Ready(each_step(tokenizer, row.prompt, row.completions, separator), row.labels) for row in rows]


def _example(row: Steps, separator: str) -> Example:
    return Example(row.prompt, Message("assistant", separator.join(row.completions)), row.line)


def _weights(ready: Sequence[Ready]) -> tuple[float, float]:
    """(of right, of wrong) steps, so that both kinds weigh the same in all and a step 1 on average.

    Per file and not per batch: rows of similar length share a batch, and often a label.
    """
    labels = [label for one in ready for label in one.labels]
    counts = labels.count(True), labels.count(False)
    if not all(counts):
        return 1.0, 1.0
    return len(labels) / (2 * counts[0]), len(labels) / (2 * counts[1])


def _trainer(
    model: Any, config: dict[str, Any], rows: Sequence[Ready], *, pad: int, weights: tuple[float, float]
) -> Any:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits
    from transformers import Trainer, TrainingArguments

    def collate(batch: Sequence[Ready]) -> dict[str, Any]:
        width = max(len(one.row.input_ids) for one in batch)
        ids = torch.full((len(batch), width), pad, dtype=torch.long)
        attention = torch.zeros((len(batch), width), dtype=torch.long)
        labels = torch.full((len(batch), width), UNSCORED)
        for line, one in enumerate(batch):
            ids[line, : len(one.row.input_ids)] = torch.tensor(one.row.input_ids)
            attention[line, : len(one.row.input_ids)] = 1
            labels[line, list(one.row.places)] = torch.tensor([float(label) for label in one.labels])
        return {"input_ids": ids, "attention_mask": attention, "step_labels": labels}

    class StepTrainer(Trainer):  # type: ignore[misc]  # transformers is not followed, so it is Any
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **rest: Any) -> Any:
            labels = inputs["step_labels"]
            outputs = model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
            )
            read = labels != UNSCORED
            scores, wanted = outputs.logits.squeeze(-1)[read].float(), labels[read]
            weight = torch.where(wanted > 0, *weights)
            loss = (binary_cross_entropy_with_logits(scores, wanted, reduction="none") * weight).mean()
            right = ((scores > 0) == (wanted > 0)).float().mean()
            self.step_figures = {"step_accuracy": float(right), "mean_score": float(scores.mean())}
            return (loss, outputs) if return_outputs else loss

        def log(self, logs: dict[str, float], *rest: Any, **more: Any) -> None:
            if "loss" in logs:
                logs |= self.step_figures
            super().log(logs, *rest, **more)

    trainer = StepTrainer(
        model=model,
        args=TrainingArguments(**config, remove_unused_columns=False, label_names=[]),
        train_dataset=list(rows),
        data_collator=collate,
    )
    # Otherwise transformers takes the loss for a sum over a whole accumulation, and does not divide it.
    trainer.model_accepts_loss_kwargs = False
    return trainer


def _prove(
    tokenizer: Any, rows: Sequence[Steps], batches: Any, order: Sequence[int], separator: str
) -> dict[str, Any]:
    """What the model is fed, read back as text: behind each step, and nowhere else, stands its own label."""
    place = 0
    sample: list[tuple[str, bool]] = []
    for batch in batches:
        columns = (
            batch["input_ids"].tolist(),
            batch["attention_mask"].tolist(),
            batch["step_labels"].tolist(),
        )
        for ids, attention, labels in zip(*columns, strict=True):
            row = rows[order[place]]
            width = sum(attention)
            scored = [at for at, label in enumerate(labels) if label != UNSCORED]
            if scored[-1:] != [width - 1] or ids[width - 1] != tokenizer.eos_token_id:
                raise MaskBroken(f"line {row.line}: the last step is not scored at the end of turn")
            if [labels[at] > 0 for at in scored] != list(row.labels):
                raise MaskBroken(f"line {row.line}: the labels are not those of its steps")
            prompt = render(tokenizer, row.prompt, add_generation_prompt=True)
            if tuple(ids[: len(prompt)]) != prompt:
                raise MaskBroken(f"line {row.line}: the answer does not stand behind the prompt of serving")
            text = ""
            for step, at in zip(row.completions[:-1], scored, strict=False):
                text += step + separator
                until, before = (decode(tokenizer, ids[len(prompt) : end]) for end in (at + 1, at))
                if not until.startswith(text) or before.startswith(text):
                    raise MaskBroken(f"line {row.line}: a score is not read where its step ends")
            sample = sample or list(zip(row.completions, row.labels, strict=True))
            place += 1
    if place != len(order):
        raise MaskBroken(f"{len(order)} samples were arranged and {place} reached the model")
    return {
        "rows": len(set(order)),
        "steps": sum(len(rows[at].labels) for at in set(order)),
        "wrong": sum(row.labels.count(False) for row in (rows[at] for at in set(order))),
        "sample": [{"step": step, "label": label} for step, label in sample],
    }
