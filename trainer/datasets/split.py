"""Holding rows out, when a recipe brings no cases of its own."""

from typing import Any

from registry import canonical
from trainer.datasets.leaks import prompt_key
from trainer.datasets.rows import Case, Conversation, Dataset, Labelled, Pair, R, Row
from trainer.errors import DataInvalid, Fault


def split(dataset: Dataset[R], *, share: float) -> tuple[Dataset[R], Dataset[R]]:
    """(training rows, held-out rows). Which rows are held out depends on what they ask and on nothing else:
    adding a row moves no other, and rows that ask the same stay together.

    Raises DataInvalid when one side would be empty.
    """
    limit = int(share * 2**64)
    held = tuple(row for row in dataset.rows if _place(row) < limit)
    kept = tuple(row for row in dataset.rows if _place(row) >= limit)
    if not held or not kept:
        text = f"has too few different questions to hold {share:.0%} of them out"
        raise DataInvalid(dataset.name, (Fault(dataset.name, text),))
    lines = canonical.digest_of([dataset.digest, [row.line for row in held]])
    return (
        Dataset(dataset.name, dataset.digest, kept, dataset.repeated),
        Dataset(f"{dataset.name} (held out)", lines, held),
    )


def as_cases(dataset: Dataset[Any]) -> Dataset[Case]:
    """Held-out rows as questions whose known good answer is the row's own."""
    cases = tuple(_case(row) for row in dataset.rows)
    return Dataset(dataset.name, dataset.digest, cases)


def _place(row: Row) -> int:
    return int(canonical.digest_of([list(pair) for pair in prompt_key(row.prompt)]).hex[:16], 16)


def _case(row: Row) -> Case:
    if isinstance(row, Case):
        return row
    answer: str | None = None
    tools: tuple[dict[str, Any], ...] = ()
    if isinstance(row, Conversation):
        answer, tools = row.messages[-1].content or None, row.tools
    elif isinstance(row, Pair):
        answer = row.chosen
    elif isinstance(row, Labelled) and row.label:
        answer = row.completion
    return Case(
        id=f"line-{row.line}", prompt=row.prompt, line=row.line, answer=answer, tags=row.tags, tools=tools
    )
