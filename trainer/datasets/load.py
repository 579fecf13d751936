"""A source as checked rows of one shape."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from registry.digests import Digest
from trainer.datasets.columns import Columns
from trainer.datasets.formats import Report, format_of
from trainer.datasets.formats.cells import read_cells
from trainer.datasets.rows import Case, Conversation, Dataset, Row, Shape
from trainer.datasets.shapes import read_row
from trainer.datasets.sources import File, Source
from trainer.datasets.text import from_cell
from trainer.errors import DataInvalid, Fault


def load_rows(
    source: Source | Path, *, shape: Shape, columns: Mapping[str, str | None] | None = None
) -> Dataset[Any]:
    """Every row of ``source``. Raises FormatUnknown, the leaves of SourceUnusable, and DataInvalid with all
    faults.

    ``columns`` renames what the file calls a column to what Tenon does; None drops it.
    """
    place = File(source) if isinstance(source, Path) else source
    read = format_of(place.name)
    report, renaming = Report(place.name), Columns(columns or {}, shape)
    rows: list[Row] = []
    troubles: list[tuple[int, str]] = []
    names: dict[str, int] = {}
    with place.opened() as path:
        digest = Digest.of_file(path)
        for line, value in read(path, report):
            renamed = renaming.renamed(line, value, report)
            faults: list[str] = []
            if read is read_cells:
                faults, renamed = _from_cells(renamed)
            if not faults:
                faults, row = read_row(renamed, shape=shape, line=line)
                if isinstance(row, Case) and names.setdefault(row.id, line) != line:
                    faults = [f"the id {row.id[:80]!r} stands on line {names[row.id]} already"]
                elif row is not None:
                    rows.append(row)
            troubles += [(line, what) for what in faults]
        if Digest.of_file(path) != digest:
            raise DataInvalid(place.name, (Fault(place.name, "was changed while it was read"),))
    if (missing := renaming.missing()) is not None:
        # Every row lacks the same: once is enough.
        report.fault(0, missing)
    else:
        renaming.report(report)
        report.found += troubles
    if not rows and not report.found:
        report.fault(0, "has no rows")
    report.refuse()
    return Dataset(place.name, digest, tuple(rows), _repeated(rows))


def load_conversations(path: Path) -> Dataset[Conversation]:
    return cast("Dataset[Conversation]", load_rows(path, shape="conversations"))


def _from_cells(row: Mapping[str, str]) -> tuple[list[str], dict[str, Any]]:
    read = {column: from_cell(column, text) for column, text in row.items()}
    faults = [fault for fault, _ in read.values() if fault is not None]
    return faults, {column: value for column, (_, value) in read.items() if value is not None}


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
