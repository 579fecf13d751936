"""The figures of every step so far, also of those before a crash: snapshots of a trainer do not hold them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

Figures: TypeAlias = dict[str, float]

MONITORED: Final = "monitored.jsonl"
"""Its name in a job's scratch folder."""
_STEP: Final = "step"


class Remembered:
    """Kept in ``file``, if there is one."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._recalled = False

    def before(self, step: int | None) -> list[tuple[int, Figures]]:
        """What an earlier process saw before ``step`` (None: all of it). Later steps, which are computed
        again, are forgotten. Only the first call has anything to give."""
        if self._recalled or self._file is None:
            return []
        self._recalled = True
        lines = {int(one[_STEP]): one for one in _lines(self._file) if step is None or one[_STEP] < step}
        kept = sorted(lines.items())
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text("".join(json.dumps(one) + "\n" for _, one in kept), encoding="utf-8")
        return [(number, {name: one[name] for name in one if name != _STEP}) for number, one in kept]

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({_STEP: step, **figures}) + "\n")


def _lines(file: Path) -> list[Figures]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return []
    # A crash may leave half a line.
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]
