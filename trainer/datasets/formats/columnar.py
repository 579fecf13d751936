"""Parquet, a batch at a time; the number of a row takes the place of its line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from trainer.datasets.formats.report import Report
from trainer.errors import LibrariesMissing

_BATCH: Final = 1024


def read_columnar(path: Path, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise LibrariesMissing(f"{error.name} is not installed", library=error.name) from None
    if path.stat().st_size == 0:
        report.fault(0, "is empty")
        return
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    value = _without_nulls(row)
                    if not report.bad(number, value):
                        yield number, value
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or ["unreadable"])[0][:160]
        return report.fault(number + 1 if number else 0, f"is not Parquet that can be read: {reason}")
    if number == 0:
        report.fault(0, "has no rows")


def _without_nulls(value: Any) -> Any:
    """A column of structs has every field that any row has: what a row lacks reads as null."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
