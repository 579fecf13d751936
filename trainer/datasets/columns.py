"""What a file calls its columns and what Tenon does: the recipe's ``data.columns``."""

from collections.abc import Mapping
from typing import Any, Final

from trainer.datasets.formats import Report
from trainer.datasets.messages import unknown_key
from trainer.datasets.rows import Shape
from trainer.datasets.shapes import KEYS

REST: Final = "*"
"""``"*": null`` drops every column that has no name of Tenon's."""

NEEDED: Final[Mapping[Shape, tuple[frozenset[str], ...]]] = {
    "conversations": (frozenset({"messages"}), frozenset({"prompt", "completion"})),
    "pairs": (frozenset({"prompt", "chosen", "rejected"}), frozenset({"chosen", "rejected"})),
    "labelled": (frozenset({"prompt", "completion", "label"}),),
    "steps": (frozenset({"prompt", "completions", "labels"}),),
    "cases": (frozenset({"messages"}), frozenset({"prompt"})),
}
"""A file must have all columns of one of these."""

_OTHER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "prompt": ("question", "instruction", "input", "query", "text", "problem", "user"),
    "completion": ("answer", "response", "output", "solution", "assistant", "reply"),
    "messages": ("conversation", "conversations", "dialog", "dialogue", "turns", "chat"),
    "chosen": ("preferred", "accepted", "winner", "better", "response_chosen"),
    "rejected": ("dispreferred", "loser", "worse", "response_rejected"),
    "label": ("thumb", "rating", "is_good", "desirable", "score"),
    "completions": ("steps",),
    "labels": ("step_labels", "ratings"),
}
"""What public data sets call them: asked for when a column is missing, never taken without being told."""


class Columns:
    """One pass over a file's rows: renames, and remembers what was there."""

    def __init__(self, mapping: Mapping[str, str | None], shape: Shape) -> None:
        self._mapping = mapping
        self._shape = shape
        self._seen: dict[str, int] = {}
        self._unknown: dict[str, list[int]] = {}
        self._rows = 0

    def renamed(self, line: int, value: Mapping[str, Any], report: Report) -> dict[str, Any]:
        """The row under Tenon's names, without what is dropped or unknown."""
        self._rows += 1
        row: dict[str, Any] = {}
        origin: dict[str, str] = {}
        for column, item in value.items():
            self._seen.setdefault(column, line)
            target = self._mapping.get(column, column)
            if target is None:
                continue
            if target not in KEYS[self._shape]:
                if REST not in self._mapping:
                    self._unknown.setdefault(column, []).append(line)
            elif target in row:
                report.fault(line, f"{origin[target][:40]!r} and {column[:40]!r} are both {target}")
            else:
                row[target], origin[target] = item, column
        return row

    def missing(self) -> str | None:
        """Why no row of the file can be read, or None."""
        present = {self._mapping.get(column, column) for column in self._seen}
        ways = NEEDED[self._shape]
        if not self._rows or any(way <= present for way in ways):
            return None
        wanted = ", or ".join(
            " and ".join(sorted(way, key=KEYS[self._shape].index))
            for way in ways
            if not any(o < way for o in ways)
        )
        suggested = {
            column: target
            for target in sorted(set().union(*ways) - present)
            for column in self._seen
            if column.lower() in _OTHER_NAMES.get(target, ())
        }
        shown = ", ".join(f"{column}: {target}" for column, target in suggested.items()) or "theirs: ours"
        return (
            f"has the columns {_listed(self._seen)}, and {self._shape} need {wanted}; "
            f"name them with data.columns: {{{shown}}}"
        )

    def report(self, report: Report) -> None:
        """What the mapping and the file do not agree on. A column that every row has is told once."""
        for column, target in self._mapping.items():
            if column != REST and column not in self._seen:
                what = f"data.columns names {column[:40]!r}, and the columns are {_listed(self._seen)}"
                report.fault(0, what)
            if target is not None and target not in KEYS[self._shape]:
                report.fault(0, f"data.columns: {unknown_key(target, KEYS[self._shape])}")
        for column, lines in self._unknown.items():
            what = unknown_key(column, KEYS[self._shape])
            if len(lines) == self._rows > 1:
                advice = f"name it with data.columns, or drop it: {{{column[:40]}: null}}"
                report.fault(0, f"every row has {column[:40]!r}, where {what}; {advice}")
            else:
                for line in lines:
                    report.fault(line, what)


def _listed(names: Mapping[str, Any]) -> str:
    shown = list(names)[:12]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return (", ".join(name[:40] for name in shown) or "none") + more
