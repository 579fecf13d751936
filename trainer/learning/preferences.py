"""Pairs and judged answers as token ids, and the proof that TRL learns exactly those.

TRL would render them itself, with the traps of :mod:`trainer.learning.rows` and one more: it takes the tokens
that both answers begin with for a part of the prompt when they merge with its end. So its trainers get ids.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from trainer.alarms import Alarm, as_proof
from trainer.datasets import Example, Labelled, Message, Pair
from trainer.learning import together
from trainer.learning.job import Job, Learned, StepDone
from trainer.learning.masks import MaskProof, prove
from trainer.learning.remembered import MONITORED, Remembered
from trainer.learning.rows import IGNORED, Row, make_rows

LENGTH_BIAS: Final = 1.5
"""From this ratio of chosen to rejected tokens (or its inverse) on, length alone tells the two apart, and it
is learned first (arXiv:2310.03716)."""


@dataclass(frozen=True, slots=True)
class Sides:
    """A pair, rendered. Both rows begin with the same prompt."""

    chosen: Row
    rejected: Row

    @property
    def prompt_ids(self) -> list[int]:
        return list(self.chosen.input_ids[: self.chosen.prompt])

    @property
    def width(self) -> int:
        return max(len(self.chosen.input_ids), len(self.rejected.input_ids))


def answer_ids(row: Row) -> list[int]:
    return list(row.input_ids[row.prompt :])


def pair_examples(pairs: Sequence[Pair]) -> tuple[Example, ...]:
    """Chosen and rejected of each pair, one after the other."""
    return tuple(
        Example(pair.prompt, Message("assistant", answer), pair.line)
        for pair in pairs
        for answer in (pair.chosen, pair.rejected)
    )


def labelled_example(row: Labelled) -> Example:
    return Example(row.prompt, Message("assistant", row.completion), row.line)


def make_sides(
    tokenizer: Any, pairs: Sequence[Pair], *, max_length: int, file: str
) -> tuple[tuple[Example, ...], tuple[Sides, ...]]:
    """(examples as ``pair_examples`` orders them, the pairs as ids). Raises what ``make_rows`` does."""
    examples = pair_examples(pairs)
    rows = make_rows(tokenizer, examples, max_length=max_length, file=file)
    return examples, tuple(map(Sides, rows[::2], rows[1::2]))


def prove_pairs(
    tokenizer: Any,
    examples: Sequence[Example],
    batches: Iterable[Mapping[str, Any]],
    *,
    order: Sequence[int],
    batch_size: int,
) -> MaskProof:
    """Check the trainer's own batches; ``order`` names the pair of each sample.

    In ``batches`` (as ``supervised`` gives them) the chosen answers stand before the rejected ones. Raises
    MaskBroken.
    """
    flat = [
        2 * pair + side
        for start in range(0, len(order), batch_size)
        for side in (0, 1)
        for pair in order[start : start + batch_size]
    ]
    return prove(tokenizer, examples, batches, order=flat)


def supervised(batches: Iterable[Mapping[str, Any]], prefix: str = "") -> Iterator[dict[str, Any]]:
    """Batches of DPO and KTO (``completion_mask``) or ORPO and CPO (``chosen_labels``), with ``labels`` as a
    proof of masks reads them."""
    for batch in batches:
        if "chosen_input_ids" in batch:
            for side in ("chosen", "rejected"):
                yield {
                    name: batch[f"{side}_{name}"]
                    # The collator pads labels with -100 and ids with the padding token.
                    for name in ("input_ids", "labels", "attention_mask")
                }
            continue
        ids, mask = batch[f"{prefix}input_ids"], batch[f"{prefix}completion_mask"]
        yield {
            "input_ids": ids,
            "labels": ids.masked_fill(mask == 0, IGNORED),
            "attention_mask": batch[f"{prefix}attention_mask"],
        }


def note_lengths(job: Job[Any, Any], chosen: Sequence[Row], rejected: Sequence[Row]) -> tuple[Alarm, ...]:
    """Say so when the wanted answers are told by their length."""
    long, short = (sum(len(row.input_ids) - row.prompt for row in rows) for rows in (chosen, rejected))
    ratio = (long / len(chosen)) / (short / len(rejected))
    if 1 / LENGTH_BIAS <= ratio <= LENGTH_BIAS:
        return ()
    alarm = Alarm(
        "length_bias",
        0,
        f"{job.file}: wanted answers are {ratio:.1f} times as long as the others, and length is learned "
        "first: watch the length of the generated answers",
    )
    job.note(str(alarm))
    return (alarm,)


class Displacement:
    """Watches whether the wanted answers, too, become less likely (likelihood displacement, 2410.08847).

    The margin grows all the same. On the demo base it went with adapters that followed the house rule in 8 of
    10 answers and copied 1 in 100 payees and amounts, at a training accuracy of 1.0.
    With a ``file``, a run that is picked up still knows its first steps.
    """

    def __init__(self, on_step: StepDone, *, key: str, file: Path | None = None) -> None:
        """``key``: the figures that are compared, such as ``rewards`` or ``logps``."""
        self._on_step = on_step
        self._names = (f"{key}/chosen", f"{key}/rejected")
        self._seen: list[tuple[float, float]] = []
        self._step = 0
        self._remembered = Remembered(file)

    def __call__(self, step: int, figures: dict[str, float]) -> None:
        self._recall(step)
        if all(name in figures for name in self._names):
            mine = {name: figures[name] for name in self._names}
            self._remembered.add(step, mine)
            self._take(step, mine)
        self._on_step(step, figures)

    def alarm(self, cure: str) -> Alarm | None:
        """When both fell from the first quarter of the steps to the last."""
        self._recall(None)  # of a run that had nothing left to do but to save
        share = max(1, len(self._seen) // 4)
        if len(self._seen) < 2 * share:
            return None
        first, last = self._seen[:share], self._seen[-share:]
        before, after = (
            tuple(sum(side) / share for side in zip(*part, strict=True)) for part in (first, last)
        )
        if after[0] < before[0] and after[1] < before[1]:
            return Alarm(
                "likelihood_displacement",
                self._step,
                f"both answers became less likely: {self._names[0]} went from {before[0]:.2f} to "
                f"{after[0]:.2f} (likelihood displacement): {cure}",
            )
        return None

    def _recall(self, step: int | None) -> None:
        for number, figures in self._remembered.before(step):
            self._take(number, figures)

    def _take(self, step: int, figures: dict[str, float]) -> None:
        self._step = step
        self._seen.append((figures[self._names[0]], figures[self._names[1]]))


def watched(
    job: Job[Any, Any],
    train: Callable[[Job[Any, Any]], Learned],
    *,
    key: str,
    cure: str,
    known: Sequence[Alarm],
) -> Learned:
    """What ``train`` learned, with the alarms (``known`` before it began, and displacement) in its proof."""
    # One process of several writes the file, and its proof is the one that counts.
    file = job.scratch / MONITORED if together.leads() else None
    displacement = Displacement(job.on_step, key=key, file=file)
    learned = train(replace(job, on_step=displacement))
    found = displacement.alarm(cure)
    if found is not None:
        job.note(str(found))
    alarms = known if found is None else (*known, found)
    return replace(learned, proof={**learned.proof, **as_proof(alarms)})
