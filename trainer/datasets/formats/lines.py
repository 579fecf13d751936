"""JSON Lines: one object a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry import canonical
from registry.errors import InvalidDocument
from trainer.datasets.formats.physical import physical_lines
from trainer.datasets.formats.report import Report


def read_lines(path: Path, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, text in physical_lines(path, report):
        if text is None:
            continue
        if not text.strip():
            report.fault(number, "is an empty line")
            continue
        if number == 1 and text.strip() == "[":
            report.fault(1, "begins a JSON array: write one object a line (JSON Lines)")
            return
        try:
            value = canonical.decode(text)
        except InvalidDocument as error:
            report.fault(number, error.message)
            continue
        if not isinstance(value, dict):
            report.fault(number, "must be a JSON object")
        elif not report.bad(number, value):
            yield number, value
