"""Lines of a file, none of them allowed to fill the memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from trainer.datasets.formats.report import Report

MAX_LINE: Final = 8 << 20
"""Bytes. The longest contexts are about a million tokens, 4 MB of text; a file without line breaks, such as a
database dump, is refused at its first line instead of being read whole."""

_BOM: Final = b"\xef\xbb\xbf"


def physical_lines(path: Path, report: Report) -> Iterator[tuple[int, str | None]]:
    """(number from 1, text with its line break); None for a line that was reported as unreadable."""
    with path.open("rb") as stream:
        number = 0
        while raw := stream.readline(MAX_LINE + 1):
            number += 1
            if number == 1:
                if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    report.fault(1, "is UTF-16: save the file as UTF-8")
                    return
                raw = raw.removeprefix(_BOM)
            if len(raw) > MAX_LINE:
                report.fault(number, f"is longer than {MAX_LINE >> 20} MiB: one row a line")
                while raw and not raw.endswith(b"\n"):
                    raw = stream.readline(MAX_LINE)
                yield number, None
                continue
            try:
                yield number, raw.decode("utf-8")
            except UnicodeDecodeError as error:
                report.fault(number, f"is not UTF-8 (byte {error.start + 1}): save the file as UTF-8")
                yield number, None
        if number == 0:
            report.fault(0, "is empty")
