"""A finished run, read back from its folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.errors import InvalidDocument
from registry.evidence import Metric
from registry.fingerprint import Fingerprint
from registry.names import AdapterName
from trainer.errors import RunChanged
from trainer.folder import ADAPTER, EVALUATION, FINGERPRINT, PLAN, RunFolder
from trainer.plan import Plan


@dataclass(frozen=True, slots=True)
class BesideFigures:
    """Another model on the same cases. ``difference`` is how far the run's adapter is above (or below) it."""

    metrics: dict[str, Metric]
    difference: dict[str, Metric]


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """Nothing of it is published yet."""

    plan: Plan
    folder: Path
    fingerprint: Fingerprint
    metrics: dict[str, Metric]
    baseline: dict[str, Metric]
    adapter_active: bool
    seconds: dict[str, float]
    """Stage -> what it took when it was computed."""
    reused: bool
    """Whether all of it had been computed before."""
    beside: dict[str, BesideFigures] = field(default_factory=dict)
    """Role (``start``, ``teacher``) -> how that model does."""

    @property
    def name(self) -> AdapterName:
        return self.plan.name

    @property
    def adapter(self) -> Path:
        return self.folder / ADAPTER


def load_run(run_folder: Path, *, reused: bool = True) -> TrainedRun:
    """The finished run in ``run_folder``. Raises RunNotFinished, RunChanged."""
    folder = RunFolder(run_folder)
    marker = folder.done()
    try:
        plan = Plan.parse((run_folder / PLAN).read_bytes())
        fingerprint = Fingerprint.parse((run_folder / FINGERPRINT).read_bytes())
        figures = folder.read_json(EVALUATION)
        metrics, baseline = read_metrics(figures["metrics"]), read_metrics(figures["baseline"])
        beside = {
            role: BesideFigures(read_metrics(other["metrics"]), read_metrics(other["difference"]))
            for role, other in figures.get("beside", {}).items()
        }
    except (OSError, InvalidDocument, KeyError, TypeError, AttributeError):
        raise RunChanged("this run was written by another version of Tenon") from None
    if plan.identity() != marker.plan:
        raise RunChanged("the plan in this folder is not the one that was run")
    return TrainedRun(
        plan=plan,
        folder=run_folder,
        fingerprint=fingerprint,
        metrics=metrics,
        baseline=baseline,
        adapter_active=figures["adapter_active"] is True,
        seconds=marker.seconds,
        reused=reused,
        beside=beside,
    )


def read_metrics(figures: dict[str, Any]) -> dict[str, Metric]:
    return {name: Metric.build(figure) for name, figure in figures.items()}
