"""JSON Lines, one object a line, every fault with its line number."""

import math
from pathlib import Path
from typing import Any

from registry import canonical
from registry.digests import Digest
from registry.errors import InvalidDocument
from trainer.errors import DataInvalid, Fault


class Reading:
    """One pass over a file: good lines come out of ``objects``, faults collect in ``faults``."""

    def __init__(self, path: Path) -> None:
        try:
            raw = path.read_bytes()
        except OSError as error:
            reason = Fault(path.name, error.strerror or "cannot be read")
            raise DataInvalid(path.name, (reason,)) from None
        self.name = path.name
        self.digest = Digest.of(raw)
        self.faults: list[Fault] = []
        self.objects: list[tuple[int, dict[str, Any]]] = []
        lines = raw.split(b"\n")
        if lines[-1] == b"":
            lines.pop()
        if not lines:
            self.faults.append(Fault(self.name, "is empty"))
        for number, line in enumerate(lines, start=1):
            self._read(number, line)

    def fault(self, line: int, what: str) -> None:
        self.faults.append(Fault(f"{self.name}:{line}", what))

    def _read(self, number: int, line: bytes) -> None:
        if not line.strip():
            return self.fault(number, "is an empty line")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            return self.fault(number, f"is not UTF-8 (byte {error.start + 1})")
        try:
            value = canonical.decode(text)
        except InvalidDocument as error:
            return self.fault(number, error.message)
        if not isinstance(value, dict):
            return self.fault(number, "must be a JSON object")
        if (trouble := _unwritable(value)) is not None:
            return self.fault(number, trouble)
        return self.objects.append((number, value))

    def refuse(self) -> None:
        """Raise DataInvalid if anything was wrong, in the order of the lines."""
        if self.faults:
            raise DataInvalid(self.name, tuple(sorted(self.faults, key=_line)))


def _line(fault: Fault) -> int:
    tail = fault.where.rpartition(":")[2]
    return int(tail) if tail.isdigit() else 0


def _unwritable(value: Any) -> str | None:
    """JSON admits text and numbers that cannot be written again: half a surrogate pair, 1e999."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return "contains half of a surrogate pair (a broken \\u escape)"
    elif isinstance(value, float) and not math.isfinite(value):
        return "contains a number that is too large"
    elif isinstance(value, dict):
        return next((found for pair in value.items() for part in pair if (found := _unwritable(part))), None)
    elif isinstance(value, list):
        return next((found for part in value if (found := _unwritable(part))), None)
    return None
