"""A source as checked rows of one shape."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from trainer.datasets.lines import Reading
from trainer.datasets.rows import Case, Conversation, Dataset, Row, Shape
from trainer.datasets.shapes import read_row


def load_rows(path: Path, *, shape: Shape, columns: Mapping[str, str] | None = None) -> Dataset[Any]:
    """Every row of ``path``; raises DataInvalid with all faults.

    ``columns`` renames what the file calls a column to what Tenon does.
    """
    reading = Reading(path)
    rows: list[Row] = []
    names: dict[str, int] = {}
    for line, value in reading.objects:
        renamed = {(columns or {}).get(key, key): item for key, item in value.items()}
        faults, row = read_row(renamed, shape=shape, line=line)
        if isinstance(row, Case) and names.setdefault(row.id, line) != line:
            faults.append(f"the id {row.id[:80]!r} stands on line {names[row.id]} already")
        for what in faults:
            reading.fault(line, what)
        if row is not None and not faults:
            rows.append(row)
    reading.refuse()
    return Dataset(reading.name, reading.digest, tuple(rows), _repeated(rows))


def load_conversations(path: Path) -> Dataset[Conversation]:
    return cast("Dataset[Conversation]", load_rows(path, shape="conversations"))


def _repeated(rows: list[Row]) -> tuple[int, ...]:
    seen: set[Any] = set()
    lines = []
    for row in rows:
        says = _says(row)
        if says in seen:
            lines.append(row.line)
        seen.add(says)
    return tuple(lines)


def _says(row: Row) -> Any:
    """What makes two rows the same: everything that is learned."""
    if isinstance(row, Conversation):
        return row.messages
    return tuple(getattr(row, name) for name in row.__slots__ if name in _LEARNED)


_LEARNED = frozenset(
    {"prompt", "chosen", "rejected", "completion", "label", "completions", "labels", "answer"}
)
