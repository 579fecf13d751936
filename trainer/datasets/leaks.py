"""No question of the evaluation may stand in the training data."""

from collections.abc import Sequence

from trainer.datasets.conversations import Dataset, Message
from trainer.errors import DataLeak, Fault


def refuse_leaks(
    dataset: Dataset, questions: Sequence[tuple[int, Sequence[Message]]], *, evaluation: str
) -> None:
    """Raise DataLeak, naming both lines of every question that training has seen.

    ``questions`` are (line, messages) of the file called ``evaluation``. Case and white space do not make a
    question new; near duplicates are not looked for.
    """
    trained: dict[tuple[tuple[str, str], ...], int] = {}
    for example in dataset.examples():
        trained.setdefault(_key(example.prompt), example.line)
    faults = tuple(
        Fault(f"{evaluation}:{line}", f"the same question stands in {dataset.name}:{trained[key]}")
        for line, messages in questions
        if (key := _key(messages)) in trained
    )
    if faults:
        raise DataLeak(evaluation, faults)


def _key(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    return tuple((message.role, " ".join(message.content.casefold().split())) for message in messages)
