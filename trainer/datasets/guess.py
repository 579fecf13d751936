"""Which shape a file has, by the names of its first row."""

from collections.abc import Mapping

from trainer.datasets.formats import Report, format_of
from trainer.datasets.rows import Shape
from trainer.datasets.sources import Source


def guess_shape(source: Source, columns: Mapping[str, str | None]) -> Shape:
    """Where the names tell nothing, conversations: loading then says what is missing."""
    read = format_of(source.name)
    with source.opened() as path:
        first = next(iter(read(path, Report(source.name))), None)
    return _shape({columns.get(name, name) for name in first[1]} if first is not None else set())


def _shape(names: set[str | None]) -> Shape:
    if names >= {"chosen", "rejected"}:
        return "pairs"
    if "completions" in names:
        return "steps"
    if "label" in names:
        return "labelled"
    asked = bool(names & {"messages", "prompt"})
    if names & {"facts", "expect", "columns"} or (asked and "answer" in names):
        return "cases"
    return "cases" if "prompt" in names and "completion" not in names else "conversations"
