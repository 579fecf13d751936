"""Answers that stand in a file beside their questions, ready to be judged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from trainer.datasets import Case
from trainer.datasets.formats import Report
from trainer.datasets.formats.lines import read_lines
from trainer.datasets.shapes import read_row
from trainer.rewards import Answer, Scored

COMPLETION: Final = "completion"


def read_answered(path: Path) -> tuple[Answer, ...]:
    """Rows of cases with what was said in ``completion``; where there is none, the case's own ``answer``.

    Raises DataInvalid with every fault and its line.
    """
    report = Report(path.name)
    answers = []
    for line, value in read_lines(path, report):
        said = value.get(COMPLETION, value.get("answer"))
        rest = {key: item for key, item in value.items() if key != COMPLETION}
        faults, case = read_row(rest, shape="cases", line=line)
        if not isinstance(said, str):
            faults.append("has nothing to judge: give completion (what was said) or answer, as text")
        for what in faults:
            report.fault(line, what)
        if not faults and isinstance(case, Case) and isinstance(said, str):
            answers.append(Answer(case, said))
    if not answers and not report.found:
        report.fault(0, "has no rows")
    report.refuse()
    return tuple(answers)


def means(scored: Sequence[Scored]) -> list[tuple[str, float | None, int]]:
    """(reward, mean score, how many answers it applies to), in the order of the rewards."""
    columns = {name: [one.scores[name] for one in scored] for name in scored[0].scores}
    return [
        (name, sum(given) / len(given) if given else None, len(given))
        for name, column in columns.items()
        for given in [[score for score in column if score is not None]]
    ]
