"""CSV: a header, then one row a record. A quoted cell may span lines; a row stands where it starts."""

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from trainer.datasets.formats.physical import MAX_LINE, physical_lines
from trainer.datasets.formats.report import Report

_DELIMITERS: Final = (",", ";", "\t")
"""Spreadsheets write ``;`` where the comma is the decimal mark."""


def read_cells(path: Path, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = _Lines(path, report)
    header: list[str] | None = None
    first = next(lines, None)
    if first is None or lines.unreadable:
        return
    records = csv.reader(lines.again(first), delimiter=_delimiter(first), strict=True)
    while True:
        start = lines.number + 1
        try:
            with _wide_cells():
                record = next(records)
        except StopIteration:
            break
        except csv.Error as error:
            report.fault(start, _reason(error))
            continue
        if lines.unreadable & set(range(start, lines.number + 1)):
            continue  # reported as such already
        if header is None:
            header = record
            if not _usable(header, start, report):
                return
        elif not record:
            report.fault(start, "is an empty line")
        elif len(record) != len(header):
            report.fault(start, f"has {len(record)} cells, the header has {len(header)}")
        else:
            yield start, dict(zip(header, record, strict=True))


class _Lines:
    """The file's lines for the csv module, which counts what it took but not what could not be read."""

    def __init__(self, path: Path, report: Report) -> None:
        self._lines = physical_lines(path, report)
        self._held: str | None = None
        self.number = 0
        self.unreadable: set[int] = set()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if self._held is not None:
            held, self._held, self.number = self._held, None, self.number + 1
            return held
        self.number, text = next(self._lines)
        if text is None:
            self.unreadable.add(self.number)
            return "\n"
        return text

    def again(self, line: str) -> "_Lines":
        self._held, self.number = line, self.number - 1
        return self


@contextmanager
def _wide_cells() -> Iterator[None]:
    """The module's own limit, 128 KiB, is less than a long conversation; it can only be set for all."""
    before = csv.field_size_limit(MAX_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _delimiter(header: str) -> str:
    bare = re.sub(r'"[^"]*"', "", header)
    return max(_DELIMITERS, key=bare.count)


def _usable(header: list[str], line: int, report: Report) -> bool:
    if not all(name.strip() for name in header):
        report.fault(line, "must name every column: the header has an empty cell")
    elif twice := [name for place, name in enumerate(header) if name in header[:place]]:
        report.fault(line, f"names the column {twice[0][:40]!r} twice")
    else:
        return True
    return False


def _reason(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end" in text or "field larger" in text:
        return "opens a quote that is never closed"
    if "expected after" in text:
        return 'has text after a closing quote: inside quotes, write "" for "'
    if "new-line" in text:
        return "has a bare carriage return: save the file with ordinary line breaks"
    return f"is not CSV ({text})"
