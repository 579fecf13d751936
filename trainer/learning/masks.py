"""Proof that only answers are learned, read off the very batches that the trainer feeds the model.

The expectation is made a second time, from the text and by another road than :mod:`trainer.learning.rows`:
a mistake there, in the collator or in a library update must not be able to agree with itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trainer.datasets import Example
from trainer.errors import MaskBroken
from trainer.learning.rows import IGNORED, decode, render, says


@dataclass(frozen=True, slots=True)
class MaskProof:
    """What was seen; kept with the run and shown in its report."""

    rows: int
    """Rows of the data that were checked; every row occurs."""
    supervised_tokens: int
    unsupervised_tokens: int
    longest: int
    sample_prompt: str
    sample_answer: str
    """The learned tokens of the first row, decoded: the answer and its end of turn."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def prove(
    tokenizer: Any, examples: Sequence[Example], batches: Iterable[Mapping[str, Any]], *, order: Sequence[int]
) -> MaskProof:
    """Check every sample of ``batches`` against the example it comes from.

    ``batches`` hold padded ``input_ids``, ``labels`` and ``attention_mask`` (batch, width); ``order`` names
    the example of each sample, in the order of the batches. Raises MaskBroken at the first sample where a
    token outside the answer is learned, a token of the answer or its end of turn is not, or something was
    cut off.
    """
    place = 0
    checked: set[int] = set()
    supervised = unsupervised = longest = 0
    sample: tuple[str, str] | None = None
    for batch in batches:
        columns = (batch["input_ids"].tolist(), batch["labels"].tolist(), batch["attention_mask"].tolist())
        for ids, labels, attention in zip(*columns, strict=True):
            if place >= len(order):
                raise MaskBroken("the trainer feeds more samples than were arranged")
            example = examples[order[place]]
            width = sum(attention)
            said = _check_sample(tokenizer, example, ids, labels, width)
            if order[place] not in checked:
                checked.add(order[place])
                supervised += len(said)
                unsupervised += width - len(said)
            longest = max(longest, width)
            sample = sample or (decode(tokenizer, ids[: width - len(said)]), decode(tokenizer, said))
            place += 1
    if place != len(order) or sample is None:
        raise MaskBroken(f"{len(order)} samples were arranged and {place} reached the model")
    return MaskProof(len(checked), supervised, unsupervised, longest, *sample)


def _check_sample(
    tokenizer: Any, example: Example, ids: Sequence[int], labels: Sequence[int], width: int
) -> list[int]:
    """The learned tokens, if they are exactly the answer and its end of turn."""
    where = f"line {example.line}"
    if any(label != IGNORED for label in labels[width:]):
        raise MaskBroken(f"{where}: padding is learned")
    learned = [place for place in range(width) if labels[place] != IGNORED]
    if not learned:
        raise MaskBroken(f"{where}: nothing is learned")
    start = learned[0]
    if learned != list(range(start, width)):
        raise MaskBroken(f"{where}: the learned tokens are not one piece at the end of the row")
    said = list(ids[start:width])
    if list(labels[start:width]) != said:
        raise MaskBroken(f"{where}: the labels are not the tokens of the row")
    prompt = list(render(tokenizer, example.prompt, tools=example.tools, add_generation_prompt=True))
    if list(ids[:start]) != prompt:
        raise MaskBroken(f"{where}: what is not learned is not exactly the prompt of serving")
    if said[-1] != tokenizer.eos_token_id:
        raise MaskBroken(f"{where}: the end of turn is not learned (it was cut off)")
    if tokenizer.eos_token_id in said[:-1] or not says(decode(tokenizer, said[:-1]), example.answer):
        raise MaskBroken(f"{where}: what is learned is not exactly the answer")
    whole = render(tokenizer, (*example.prompt, example.answer), tools=example.tools)
    if list(whole[:width]) != list(ids[:width]):
        raise MaskBroken(f"{where}: the row is not the beginning of the rendered conversation")
    return said
