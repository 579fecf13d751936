"""What a method learns from a row, token by token, read off the very rows that training uses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from trainer.datasets import Case, Conversation, Dataset, Example, Labelled, Pair, Row, Steps
from trainer.learning.preferences import labelled_example, pair_examples
from trainer.learning.process_reward import make_ready
from trainer.learning.rows import IGNORED, decode, make_rows, render
from trainer.recipes.methods import ProcessRewardModelSettings, RewardModelSettings
from trainer.recipes.training import Training

Sign: TypeAlias = Literal["", "+", "-"]
"""Only read; learned; learned to avoid."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens that make up whole characters: mostly one."""

    text: str
    tokens: int
    sign: Sign


@dataclass(frozen=True, slots=True)
class Supervised:
    """One sample as the trainer gets it."""

    line: int
    part: str
    """``answer 2 of 3``, ``chosen`` …"""
    pieces: tuple[Piece, ...]

    @property
    def learned(self) -> int:
        return sum(piece.tokens for piece in self.pieces if piece.sign)

    @property
    def tokens(self) -> int:
        return sum(piece.tokens for piece in self.pieces)


def supervision(tokenizer: Any, dataset: Dataset[Any], settings: Training) -> Iterator[Supervised]:
    """Every sample of ``dataset``, in its order. Raises what training would: RowTooLong and its siblings."""
    for row in dataset.rows:
        yield from _samples(tokenizer, row, settings, dataset.name)


def _samples(tokenizer: Any, row: Row, settings: Training, file: str) -> Iterator[Supervised]:
    if isinstance(row, Conversation):
        turns = tuple(row.examples())
        names = [f"answer {turn} of {len(turns)}" for turn in range(1, len(turns) + 1)]
        yield from _answers(tokenizer, turns, names, ["+"] * len(turns), settings, file)
    elif isinstance(row, Pair):
        yield from _answers(
            tokenizer, pair_examples([row]), ["chosen", "rejected"], ["+", "-"], settings, file
        )
    elif isinstance(row, Labelled):
        name, sign = ("wanted", "+") if row.label else ("unwanted", "-")
        yield from _answers(tokenizer, (labelled_example(row),), [name], [sign], settings, file)
    elif isinstance(row, Steps):
        yield _steps(tokenizer, row, settings, file)
    else:
        yield _question(tokenizer, row)


def _answers(
    tokenizer: Any,
    examples: Sequence[Example],
    names: Sequence[str],
    signs: Sequence[str],
    settings: Training,
    file: str,
) -> Iterator[Supervised]:
    rows = make_rows(tokenizer, examples, max_length=settings.max_length, file=file)
    for row, name, sign in zip(rows, names, signs, strict=True):
        learned = [label != IGNORED for label in row.labels]
        if isinstance(settings, RewardModelSettings):
            # It learns no words: one score, read at the end of turn.
            learned = [False] * (len(learned) - 1) + [True]
        marks: list[Sign] = [_sign(sign) if one else "" for one in learned]
        yield Supervised(row.line, name, _pieces(tokenizer, row.input_ids, marks))


def _steps(tokenizer: Any, row: Steps, settings: Training, file: str) -> Supervised:
    if not isinstance(settings, ProcessRewardModelSettings):
        raise TypeError("steps are learned by a process reward model only")
    (ready,) = make_ready(tokenizer, [row], settings, file)
    marks: list[Sign] = [""] * len(ready.row.input_ids)
    for place, label in zip(ready.row.places, ready.labels, strict=True):
        marks[place] = "+" if label else "-"
    return Supervised(row.line, "a score behind each step", _pieces(tokenizer, ready.row.input_ids, marks))


def _question(tokenizer: Any, row: Case) -> Supervised:
    """Nothing in the file is learned: the model's own answers are, or a teacher's."""
    ids = render(tokenizer, row.prompt, tools=row.tools, add_generation_prompt=True)
    return Supervised(row.line, "question", _pieces(tokenizer, ids, [""] * len(ids)))


def _pieces(tokenizer: Any, ids: Sequence[int], signs: Sequence[Sign]) -> tuple[Piece, ...]:
    """A token may be a part of a character: it is shown with the tokens that complete it."""
    pieces: list[Piece] = []
    start = 0
    for end in range(1, len(ids) + 1):
        text = decode(tokenizer, ids[start:end])
        last = end == len(ids) or signs[end] != signs[start]
        if last or not text.endswith("\N{REPLACEMENT CHARACTER}"):
            pieces.append(Piece(text, end - start, signs[start]))
            start = end
    return tuple(pieces)


def _sign(sign: str) -> Sign:
    return "+" if sign == "+" else "-"
