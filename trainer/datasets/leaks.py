"""No question of the evaluation may stand in the training data."""

from collections.abc import Iterable, Sequence
from typing import Any

from trainer.datasets.messages import Message
from trainer.datasets.rows import Conversation, Dataset, Row
from trainer.errors import DataLeak, Fault


def refuse_leaks(train: Dataset[Any], evaluation: Dataset[Any]) -> None:
    """Raise DataLeak, naming both lines of every question that training has seen.

    Near duplicates are ``tenon data audit``'s to find.
    """
    if faults := leaks(train, evaluation):
        raise DataLeak(evaluation.name, faults)


def leaks(train: Dataset[Any], evaluation: Dataset[Any]) -> tuple[Fault, ...]:
    """Every question of the evaluation that training has seen. Case and white space do not make one new."""
    trained: dict[tuple[tuple[str, str], ...], int] = {}
    for row in train.rows:
        for prompt in prompts(row):
            trained.setdefault(prompt_key(prompt), row.line)
    return tuple(
        Fault(f"{evaluation.name}:{row.line}", f"the same question stands in {train.name}:{trained[key]}")
        for row in evaluation.rows
        if (key := prompt_key(row.prompt)) in trained
    )


def prompts(row: Row) -> Iterable[Sequence[Message]]:
    """Everything that is answered in the row: each turn of a conversation, else its one prompt."""
    if isinstance(row, Conversation):
        return (example.prompt for example in row.examples())
    return (row.prompt,)


def prompt_key(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    """Equal for prompts that ask the same."""
    return tuple((message.role, " ".join(message.content.casefold().split())) for message in messages)
