"""One file as the checks see it: whatever the shape, somebody is asked and answers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from trainer.datasets.messages import Message
from trainer.datasets.rows import Case, Conversation, Dataset, Labelled, Pair, Row, Steps

TokenCount: TypeAlias = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    wanted: bool = True
    """False for what a row shows as wrong: rejected, labelled false."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row."""

    row: Row
    answers: tuple[Answer, ...]
    where: str
    """``train.jsonl:3``"""

    @property
    def asked(self) -> str:
        """The conversation before the last answer, without what is the same in every row: the system text."""
        return "\n".join(message.content for message in self.row.prompt if message.role != "system")

    @property
    def wins(self) -> bool:
        """Whether it shows how to do it right. A question without a known answer is practised, not shown."""
        if isinstance(self.row, Steps):
            return all(self.row.labels)
        return any(answer.wanted for answer in self.answers) or isinstance(self.row, Case)

    @property
    def wanted(self) -> tuple[str, ...]:
        return tuple(answer.text for answer in self.answers if answer.wanted)

    def said(self) -> Iterator[tuple[str, str]]:
        """(role, text) of everything in the row."""
        messages: tuple[Message, ...] = (
            self.row.messages if isinstance(self.row, Conversation) else self.row.prompt
        )
        for message in messages:
            yield message.role, message.content
            for call in message.tool_calls:
                yield message.role, call.arguments
        if not isinstance(self.row, Conversation):
            for answer in self.answers:
                yield "assistant", answer.text

    def tagged(self, key: str) -> tuple[str, ...]:
        """The values of the tags ``key:value``."""
        return tuple(tag.partition(":")[2] for tag in self.row.tags if tag.startswith(f"{key}:"))


@dataclass(frozen=True, slots=True)
class Side:
    dataset: Dataset[Any]
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, dataset: Dataset[Any]) -> "Side":
        entries = tuple(Entry(row, _answers(row), f"{dataset.name}:{row.line}") for row in dataset.rows)
        return cls(dataset, entries)

    @property
    def name(self) -> str:
        return self.dataset.name


def _answers(row: Row) -> tuple[Answer, ...]:
    if isinstance(row, Conversation):
        said = (message.content for message in row.messages if message.role == "assistant")
        return tuple(Answer(text) for text in said if text)
    if isinstance(row, Pair):
        return (Answer(row.chosen), Answer(row.rejected, wanted=False))
    if isinstance(row, Labelled):
        return (Answer(row.completion, wanted=row.label),)
    if isinstance(row, Steps):
        return tuple(
            Answer(text, wanted=label) for text, label in zip(row.completions, row.labels, strict=True)
        )
    return () if row.answer is None else (Answer(row.answer),)
