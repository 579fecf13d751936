"""What the agent tells the guard inside vLLM, and what it reads of it. Imports no vLLM."""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry.errors import InvalidDocument
from server.engines.errors import EngineUnguarded
from server.engines.plugin import counters, violations
from server.engines.plugin.spec import GuardSpec
from server.engines.plugin.violations import Violation

_SPEC: Final = "guard.json"


@dataclass(frozen=True, slots=True)
class Totals:
    """Of all workers of one boot; ``workers`` is how many have reported."""

    workers: int = 0
    steps: int = 0
    checked: int = 0
    loads: int = 0
    rereads: int = 0
    activations: int = 0
    reassignments: int = 0
    audits: int = 0
    refusals: int = 0
    violations: int = 0
    nanoseconds: int = 0


def prepare(folder: Path, *, cache: Path, isolate_base: bool, audit_every: int = 64) -> Path:
    """Makes ``folder``, which must be new with each boot, and returns the guard's spec in it."""
    folder.mkdir(parents=True, mode=0o750)
    spec = GuardSpec(
        reports=str(folder.absolute()),
        cache=str(cache.absolute()),
        isolate_base=isolate_base,
        audit_every=audit_every,
    )
    path = folder.absolute() / _SPEC
    path.write_bytes(spec.canonical())
    return path


def totals(folder: Path) -> Totals:
    """Raises EngineUnguarded for a file that is not the guard's."""
    added = dict.fromkeys(counters.FIELDS, 0)
    workers = 0
    for path in sorted(folder.glob(f"*{counters.SUFFIX}")):
        try:
            figures = counters.read(path)
        except (OSError, ValueError):
            raise EngineUnguarded("the guard's counters cannot be read") from None
        workers += 1
        for name, value in figures.items():
            added[name] += value
    return Totals(workers=workers, **added)


def found(folder: Path) -> tuple[Violation, ...]:
    """What the guard has found, oldest first. A file that cannot be read counts as a violation, too."""
    reports = []
    for path in folder.glob(f"*{violations.SUFFIX}"):
        try:
            reports.append(Violation.parse(path.read_bytes()))
        except (OSError, InvalidDocument):
            reports.append(Violation(kind="unwatched", what="an unreadable report", at="", step=0))
    return tuple(sorted(reports, key=lambda report: report.at))


async def violated(folder: Path, *, poll: float = 0.2) -> Violation:
    """The first violation, as soon as there is one. Whoever waits for it should then kill the engine: its
    core is dead, and vLLM's API process may wait for ever for calls that nobody answers any more."""
    while not (reports := found(folder)):  # noqa: ASYNC110 (a file in a folder raises no event)
        await asyncio.sleep(poll)
    return reports[0]


def tidy(folder: Path) -> None:
    """At the end of a boot. What the guard has found is kept for people."""
    if not found(folder):
        shutil.rmtree(folder, ignore_errors=True)


def prove(folder: Path, *, loads: int, workers: int = 1) -> Totals:
    """After a first probe and after each load: the hooks have run, for as many loads as were asked for, in
    every worker.

    A plugin that vLLM never called, or whose hooks vLLM goes around, is found here: nothing was counted.
    """
    seen = totals(folder)
    if seen.workers < workers or seen.steps < workers or (loads and not seen.checked):
        raise EngineUnguarded("the guard inside the engine has watched no step")
    if seen.loads < loads * workers:
        raise EngineUnguarded(f"the guard has seen {seen.loads} of {loads * workers} loads")
    return seen
