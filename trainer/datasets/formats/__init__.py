"""How a file holds rows: JSON Lines, CSV or Parquet. Each gives (line, object) pairs and reports faults."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from trainer.datasets.formats.cells import read_cells
from trainer.datasets.formats.columnar import read_columnar
from trainer.datasets.formats.lines import read_lines
from trainer.datasets.formats.report import Report
from trainer.errors import FormatUnknown

Records: TypeAlias = Iterator[tuple[int, dict[str, Any]]]
Format: TypeAlias = Callable[[Path, Report], Records]

FORMATS: Final[Mapping[str, Format]] = {
    ".jsonl": read_lines,
    ".ndjson": read_lines,
    ".json": read_lines,
    ".csv": read_cells,
    ".tsv": read_cells,
    ".parquet": read_columnar,
}


def format_of(name: str) -> Format:
    """By the end of the name. Raises FormatUnknown."""
    suffix = Path(name).suffix.lower()
    if suffix not in FORMATS:
        raise FormatUnknown(f"{name or 'a folder'} is none of {', '.join(FORMATS)}", name=name)
    return FORMATS[suffix]


__all__ = ["FORMATS", "Format", "Records", "Report", "format_of"]
