"""An outcome reward model: which of two answers is better (Bradley-Terry), as a plain LoRA.

TRL's RewardTrainer with a fixed score head (:mod:`trainer.learning.scoring`) in place of a trained one.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from trainer.datasets import Pair
from trainer.errors import MaskBroken
from trainer.learning.base import needed_libraries, surroundings
from trainer.learning.batches import arrange
from trainer.learning.job import Job, Learned
from trainer.learning.lora import lora_config
from trainer.learning.preferences import make_sides, note_lengths, prove_pairs
from trainer.learning.rows import IGNORED, Row
from trainer.learning.scoring import with_score_head
from trainer.learning.session import Session, arguments, finish, open_session
from trainer.recipes.methods import RewardModelSettings

_CONFIG: Final = "adapter_config.json"


def learn(job: Job[RewardModelSettings, Pair]) -> Learned:
    """Raises ScoreUndefined beside what every method raises."""
    settings = job.settings
    with surroundings(seed=job.seed), needed_libraries():
        from datasets import Dataset
        from trl import RewardConfig, RewardTrainer

        session = scoring_session(job)
        tokenizer = session.tokenizer
        examples, sides = make_sides(tokenizer, job.rows, max_length=settings.max_length, file=job.file)
        note_lengths(job, [side.chosen for side in sides], [side.rejected for side in sides])
        order = arrange(
            [side.width for side in sides],
            steps=settings.steps * settings.gradient_accumulation,
            batch_size=settings.batch_size,
            seed=job.seed,
        )
        trainer = RewardTrainer(
            model=session.model,
            args=RewardConfig(
                **arguments(job, session),
                center_rewards_coefficient=settings.centering or None,
                pad_token=padding(tokenizer),
                max_length=None,
                train_sampling_strategy="sequential",
            ),
            train_dataset=Dataset.from_dict(
                {
                    "chosen_ids": [list(side.chosen.input_ids) for side in sides],
                    "rejected_ids": [list(side.rejected.input_ids) for side in sides],
                }
            ).select(order),
            processing_class=tokenizer,
            peft_config=session.peft_config,
        )
        rows = [row for side in sides for row in (side.chosen, side.rejected)]
        proof = prove_pairs(
            tokenizer,
            examples,
            _as_supervised(
                trainer.get_train_dataloader(),
                rows,
                order,
                settings.batch_size,
                pad=trainer.model.config.pad_token_id,
            ),
            order=order,
            batch_size=settings.batch_size,
        )
        learned = finish(job, session, trainer, proof=proof.as_json())
        as_causal(learned.folder)
        return learned


def scoring_session(job: Job[Any, Any], *, every_token: bool = False) -> Session:
    """A session whose model scores; PEFT must not take it for a classifier, whose head it would train."""
    session = open_session(replace(job, start=None))
    model = with_score_head(session.model, session.tokenizer, every_token=every_token)
    if job.start is None:
        config = lora_config(job.lora)
        config.task_type = None
        return replace(session, model=model, peft_config=config)
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(str(job.start))
    config.task_type = None
    adapted = PeftModel.from_pretrained(model, str(job.start), config=config, is_trainable=True)
    return replace(session, model=adapted, peft_config=None)


def as_causal(folder: Path) -> None:
    """The adapter's tensors are those of the causal base, and so its configuration says."""
    path = folder / _CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["task_type"] = "CAUSAL_LM"
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def padding(tokenizer: Any) -> str:
    """A token other than the end of turn: transformers scores the last token that is no padding, and where a
    tokenizer pads with its end of turn it would score the one before it."""
    if tokenizer.pad_token is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return str(tokenizer.pad_token)
    other = 0 if tokenizer.eos_token_id != 0 else 1
    return str(tokenizer.convert_ids_to_tokens(other))


def _as_supervised(
    batches: Iterable[Mapping[str, Any]],
    rows: Sequence[Row],
    order: Sequence[int],
    batch_size: int,
    *,
    pad: int,
) -> Iterator[dict[str, Any]]:
    """The trainer's batches with labels for the proof, checked for the place that transformers will score."""
    for start, batch in zip(range(0, len(order), batch_size), batches, strict=True):
        here = order[start : start + batch_size]
        fed = [rows[2 * pair + side] for side in (0, 1) for pair in here]
        ids, attention = batch["input_ids"], batch["attention_mask"]
        labels = ids.masked_fill(attention == 0, IGNORED)
        for place, row in enumerate(fed):
            labels[place, : row.prompt] = IGNORED
            scored = int((ids[place] != pad).nonzero().max())
            if scored != int(attention[place].sum()) - 1:
                raise MaskBroken(f"line {row.line}: not the end of turn would be scored, but another token")
        yield {"input_ids": ids, "labels": labels, "attention_mask": attention}
