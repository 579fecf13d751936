"""What to ask: a file of cases, each with the facts its answer must repeat and what else it must satisfy."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from trainer.datasets import Case, Dataset, Source, load_rows
from trainer.errors import DataInvalid, Fault

Suite: TypeAlias = Dataset[Case]


def load_suite(
    source: Source | Path, *, verified: bool = False, columns: Mapping[str, str | None] | None = None
) -> Suite:
    """Every case of ``source``; raises DataInvalid with all faults, and what ``load_rows`` raises.

    A case must ask for something: facts, expect or an answer. ``verified`` says that verifiers do.
    """
    suite: Suite = load_rows(source, shape="cases", columns=columns)
    idle = tuple(
        Fault(f"{suite.name}:{case.line}", "asks for nothing: give facts, expect, answer or all of them")
        for case in suite.rows
        if not verified and not case.facts and case.expect is None and case.answer is None
    )
    if idle:
        raise DataInvalid(suite.name, idle)
    return suite
