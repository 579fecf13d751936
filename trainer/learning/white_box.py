"""What offline white-box methods share: rows in their order, and batches whose masks can be proven."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.datasets import Conversation, Example, examples
from trainer.learning.base import padding_id
from trainer.learning.batches import arrange
from trainer.learning.job import Job
from trainer.learning.rows import IGNORED, Row, make_rows
from trainer.learning.session import Session


@dataclass(frozen=True, slots=True)
class Arranged:
    examples: tuple[Example, ...]
    rows: tuple[Row, ...]
    order: list[int]
    """The example of each sample, batch after batch."""


def arranged(job: Job[Any, Conversation], session: Session) -> Arranged:
    """Raises the faults of rows: too long, no end of turn, a broken template."""
    settings = job.settings
    what = examples(job.rows)
    rows = make_rows(session.tokenizer, what, max_length=settings.max_length, file=job.file)
    order = arrange(
        [len(row.input_ids) for row in rows],
        steps=settings.steps * settings.gradient_accumulation,
        batch_size=settings.batch_size,
        seed=job.seed,
        weights=[example.weight for example in what],
    )
    return Arranged(what, rows, order)


def pad_token(tokenizer: Any) -> int:
    pad = padding_id(tokenizer)
    return int(pad)


def padded(rows: Sequence[Row], pad: int) -> dict[str, Any]:
    """A batch, padded on the right; the labels say what is learned."""
    import torch

    width = max(len(row.input_ids) for row in rows)

    def lay(values: Sequence[int], filling: int) -> list[int]:
        return [*values, *[filling] * (width - len(values))]

    return {
        "input_ids": torch.tensor([lay(row.input_ids, pad) for row in rows]),
        "labels": torch.tensor([lay(row.labels, IGNORED) for row in rows]),
        "attention_mask": torch.tensor([lay([1] * len(row.input_ids), 0) for row in rows]),
    }


def prompts_of(rows: Sequence[Row], pad: int) -> dict[str, Any]:
    """The prompts alone, padded on the left: what a student goes on writing from."""
    import torch

    width = max(row.prompt for row in rows)
    return {
        "prompts": torch.tensor(
            [[pad] * (width - row.prompt) + list(row.input_ids[: row.prompt]) for row in rows]
        ),
        "prompt_attention_mask": torch.tensor(
            [[0] * (width - row.prompt) + [1] * row.prompt for row in rows]
        ),
    }
