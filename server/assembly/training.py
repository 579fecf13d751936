"""The trainer on a workspace: its base folders, its run folders, its signing key."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.catalog.local import LocalCatalog
from registry.digests import Digest
from registry.errors import AliasNotFound, InvalidDocument
from registry.evidence import GatePolicy, Metric, Report, Verdict
from registry.manifests import Manifest
from registry.names import LIVE, AdapterName, Ref
from server.assembly import bases
from server.assembly.catalog import signer
from server.workspace import Workspace
from trainer.evaluation.report import make_report, sign_report
from trainer.evaluation.run import evaluate
from trainer.evaluation.suite import load_suite
from trainer.events import Progress
from trainer.plan import Plan, Planned, load_schema, make_plan
from trainer.publish import Published, publish
from trainer.recipes import load_recipe
from trainer.run import TrainedRun, train


@dataclass(frozen=True, slots=True)
class Ready:
    """A plan and where its base's files are."""

    planned: Planned
    base_folder: Path


@dataclass(frozen=True, slots=True)
class Live:
    """A version that went through its gate."""

    version: Digest
    run: TrainedRun
    verdict: Verdict | None
    """None when it was live already."""

    @property
    def before(self) -> Metric:
        return self.run.baseline["policy"]

    @property
    def after(self) -> Metric:
        return self.run.metrics["policy"]


def prepare(workspace: Workspace, catalog: LocalCatalog, recipe: Path, overrides: Sequence[str]) -> Ready:
    """Load and check everything; nothing is trained. Raises the trainer's errors, with line numbers."""
    loaded = load_recipe(recipe, overrides=overrides)
    _, base, _ = catalog.base(loaded.recipe.base)
    folder = bases.folder_of(workspace, base.name)
    return Ready(make_plan(loaded, catalog=catalog, base_folder=folder), folder)


def run(workspace: Workspace, ready: Ready, sink: Progress, *, fresh: bool) -> TrainedRun:
    """Train, or pick up the run of an equal plan: a run folder is named by its plan."""
    folder = workspace.runs / ready.planned.plan.identity().hex[:16]
    return train(ready.planned, base_folder=ready.base_folder, run_folder=folder, sink=sink, fresh=fresh)


def push(workspace: Workspace, catalog: LocalCatalog, finished: TrainedRun, *, actor: str) -> Published:
    return publish(finished, catalog=catalog, signer=signer(workspace, "trainer"), actor=actor)


def promote(catalog: LocalCatalog, finished: TrainedRun, version: Digest, *, actor: str) -> Live:
    """Through the recipe's own gate; a version that is live already stays so without a new move."""
    name = finished.name
    if _live(catalog, name) == version:
        return Live(version, finished, None)
    return Live(version, finished, catalog.promote(name, version, gate=finished.plan.gate, actor=actor))


def gate_of(workspace: Workspace, manifest: Manifest) -> GatePolicy | None:
    """The gate that the version's own recipe asked for, if its run is in this workspace."""
    plan = manifest.provenance.plan
    if plan is None:
        return None
    try:
        known = Plan.parse((workspace.runs / plan.hex[:16] / "plan.json").read_bytes())
    except (OSError, InvalidDocument):
        return None
    return known.gate if known.identity() == plan and known.gate.rules else None


def measure(
    workspace: Workspace, catalog: LocalCatalog, ref: Ref, suite: Path, schema: Path | None, sink: Progress
) -> Report:
    """Evaluate a stored version beside its base on this machine, and file the signed report."""
    version = catalog.resolve(ref)
    base = catalog.manifest(version).base
    _, document, _ = catalog.base(base)
    cases = load_suite(suite)
    with tempfile.TemporaryDirectory(prefix="tenon-evaluate-") as scratch:
        folder = Path(scratch) / "adapter"
        catalog.export(version, folder)
        result = evaluate(
            cases,
            schema=load_schema(schema)[0] if schema else None,
            base_folder=bases.folder_of(workspace, document.name),
            adapter_folder=folder,
            sink=sink,
        ).comparison
    report = make_report(
        ref.name,
        version=version,
        base=base,
        suite=cases.digest,
        metrics=result.metrics,
        baseline=result.baseline,
        adapter_active=result.adapter_active,
    )
    catalog.file_report(sign_report(report, signer(workspace, "trainer")), actor="tenon evaluate")
    return report


def figures(metrics: Mapping[str, Metric], baseline: Mapping[str, Metric]) -> list[list[str]]:
    """Rows for a table: metric, before, after, cases."""
    return [
        [name, _percent(baseline[name]), _percent(after), str(after.n)]
        for name, after in sorted(metrics.items())
        if name in baseline
    ]


def _percent(metric: Metric) -> str:
    return f"{metric.value:.1%} ± {metric.stderr:.1%}"


def _live(catalog: LocalCatalog, name: AdapterName) -> Digest | None:
    try:
        return catalog.resolve(Ref(name, alias=LIVE))
    except AliasNotFound:
        return None
