"""Run a recipe as ``tenon train`` does, and read what it did from its folder."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.methods.entries import Entry
from registry.catalog.local.catalog import LocalCatalog
from registry.digests import Digest
from registry.evidence import Metric
from server.assembly import training
from server.cli.progress import bars
from server.workspace import Workspace
from trainer import recipes
from trainer.alarms import alarms_in
from trainer.evaluation.compare import metric
from trainer.folder import PROOF, SAMPLES
from trainer.inputs import START
from trainer.trained import TrainedRun

BUILTIN: Final = Path(recipes.__file__).parent / "builtin"
_Z: Final = 1.96


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval: Wilson's for shares, the normal one for means and differences."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """One method's line in the table. ``moved`` is the paired difference on the same cases."""

    recipe: str
    shows: str
    method: str
    settings: dict[str, Any]
    start: bool
    seconds: float
    """Of learning alone."""
    total_seconds: float
    target: str
    n: int
    before: Interval
    after: Interval
    moved: Interval
    down: bool
    side: dict[str, tuple[float, float]]
    """Side effect -> (before, after)."""
    alarms: tuple[str, ...]
    version: str
    remark: str = ""
    attested: str = ""

    @property
    def reached(self) -> bool:
        return self.moved.high < 0 if self.down else self.moved.low > 0

    @property
    def json_points(self) -> float | None:
        """Points of valid JSON lost (negative) or won."""
        sides = self.side.get("valid_json")
        return None if sides is None else 100 * (sides[1] - sides[0])

    @property
    def works(self) -> bool:
        """Beyond its interval, and at a price of at most three points of valid JSON."""
        return self.reached and (self.json_points is None or self.json_points >= -3)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "works": self.works}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Row":
        fields = {name: part for name, part in value.items() if name != "works"}
        for name in ("before", "after", "moved"):
            fields[name] = Interval(**fields[name])
        fields["side"] = {name: (pair[0], pair[1]) for name, pair in fields["side"].items()}
        fields["alarms"] = tuple(fields["alarms"])
        return cls(**fields)


def run(workspace: Workspace, catalog: LocalCatalog, recipe: str, *, fresh: bool) -> TrainedRun:
    """Train (the recipes it builds on first), or find it trained."""

    def execute(ready: training.Ready) -> TrainedRun:
        with bars(str(ready.planned.name)) as sink:
            return training.run(workspace, ready, sink, fresh=fresh)

    path = BUILTIN / f"{recipe}.yaml"
    return execute(training.prepare(workspace, catalog, path, before=execute))


def push(workspace: Workspace, catalog: LocalCatalog, run: TrainedRun) -> Digest:
    return training.push(workspace, catalog, run, actor="make methods").version


def read(entry: Entry, run: TrainedRun, version: Digest) -> Row:
    before_role = START if START in run.beside else "base"
    before = run.beside[START].metrics if before_role == START else run.baseline
    proof = json.loads((run.folder / PROOF).read_text())
    settings = run.plan.settings.model_dump(mode="json", exclude_defaults=True)
    return Row(
        recipe=entry.recipe,
        shows=entry.shows,
        method=run.plan.method,
        settings=settings,
        start=before_role == START,
        seconds=run.seconds.get("learn", 0.0),
        total_seconds=sum(run.seconds.values()),
        target=entry.target,
        n=run.metrics[entry.target].n,
        before=interval(entry.target, before[entry.target]),
        after=interval(entry.target, run.metrics[entry.target]),
        moved=_moved(run, entry.target, before_role),
        down=entry.down,
        side={
            name: (before[name].value, run.metrics[name].value)
            for name in ("valid_json", "words", "kl", "copied")
            if name in before and name in run.metrics and name != entry.target
        },
        alarms=tuple(str(alarm) for alarm in alarms_in(proof)),
        version=str(version),
        remark=entry.remark,
    )


def interval(name: str, metric: Metric) -> Interval:
    if name in ("words", "kl") or not 0 <= metric.value <= 1:
        half = _Z * metric.stderr
        return Interval(metric.value, metric.value - half, metric.value + half)
    n, share = metric.n, metric.value
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def _moved(run: TrainedRun, name: str, role: str) -> Interval:
    """On the same cases: the mean of the differences and its error."""
    if role == START:
        change = run.beside[START].difference[name]
        return _normal(change.value, change.stderr)
    samples = json.loads((run.folder / SAMPLES).read_text())
    pairs = [
        (float(sample["base"]["scores"][name]), float(sample["adapter"]["scores"][name]))
        for sample in samples
        if isinstance(sample["base"].get("scores"), dict) and name in sample["adapter"]["scores"]
    ]
    if not pairs:  # reward models: rows are scored, not answered
        before, after = run.baseline[name], run.metrics[name]
        return _normal(after.value - before.value, math.hypot(before.stderr, after.stderr))
    change = metric([after - before for before, after in pairs])
    return _normal(change.value, change.stderr)


def _normal(value: float, stderr: float) -> Interval:
    return Interval(value, value - _Z * stderr, value + _Z * stderr)
