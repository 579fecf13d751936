"""What to ask: a file of cases, each with the facts its answer must repeat and what else it must satisfy."""

from pathlib import Path
from typing import TypeAlias

from trainer.datasets import Case, Dataset, load_rows
from trainer.errors import DataInvalid, Fault

Suite: TypeAlias = Dataset[Case]


def load_suite(path: Path, *, verified: bool = False) -> Suite:
    """Every case of ``path``; raises DataInvalid with all faults.

    A case must ask for something: facts, expect or an answer. ``verified`` says that verifiers do.
    """
    suite: Suite = load_rows(path, shape="cases")
    idle = tuple(
        Fault(f"{suite.name}:{case.line}", "asks for nothing: give facts, expect, answer or all of them")
        for case in suite.rows
        if not verified and not case.facts and case.expect is None and case.answer is None
    )
    if idle:
        raise DataInvalid(suite.name, idle)
    return suite
