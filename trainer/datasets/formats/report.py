"""Where the faults of one file collect."""

import math
from dataclasses import dataclass, field
from typing import Any

from trainer.errors import DataInvalid, Fault


@dataclass(slots=True)
class Report:
    name: str
    found: list[tuple[int, str]] = field(default_factory=list)
    """(line, what); line 0 is the whole file."""

    def fault(self, line: int, what: str) -> None:
        self.found.append((line, what))

    def bad(self, line: int, value: dict[str, Any]) -> bool:
        """Whether ``value`` holds what JSON cannot: reported, since it would break digests and logs later."""
        trouble = _unwritable(value)
        if trouble is not None:
            self.fault(line, trouble)
        return trouble is not None

    @property
    def faults(self) -> tuple[Fault, ...]:
        ordered = sorted(self.found, key=lambda pair: pair[0])
        return tuple(Fault(f"{self.name}:{line}" if line else self.name, what) for line, what in ordered)

    def refuse(self) -> None:
        """Raise DataInvalid if anything was wrong, in the order of the lines."""
        if self.found:
            raise DataInvalid(self.name, self.faults)


def _unwritable(value: Any) -> str | None:
    """Files can hold text and values that cannot be written again: half a surrogate pair, 1e999, a date."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return "contains half of a surrogate pair (a broken \\u escape)"
    elif isinstance(value, float):
        return None if math.isfinite(value) else "contains a number that is not finite (NaN, or too large)"
    elif isinstance(value, dict):
        return next((found for pair in value.items() for part in pair if (found := _unwritable(part))), None)
    elif isinstance(value, list):
        return next((found for part in value if (found := _unwritable(part))), None)
    elif value is not None and not isinstance(value, int):
        return f"contains a {type(value).__name__}: write it as text"
    return None
