"""The trainer on a workspace: its base folders, its run folders, its signing key."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from registry.catalog.errors import SignerInvalid
from registry.catalog.local.catalog import LocalCatalog
from registry.digests import Digest
from registry.errors import AliasNotFound, InvalidDocument
from registry.evidence import GatePolicy, Metric, Report, Verdict
from registry.manifests import Manifest
from registry.names import LIVE, AdapterName, Ref
from server.assembly import bases, siblings
from server.assembly.catalog import signer
from server.assembly.data import columns_of
from server.assembly.endpoint_key import endpoint_key
from server.assembly.models import find_model, refuse_foreign
from server.assembly.place import Catalog
from server.assembly.pushing import sign
from server.workspace import Workspace
from trainer.errors import Fault, RecipeInvalid, RunNotFinished
from trainer.evaluation.report import make_report, sign_report
from trainer.evaluation.run import evaluate
from trainer.evaluation.suite import load_suite
from trainer.events import Progress
from trainer.inputs import Inputs, wanted
from trainer.memory import estimate, in_words, lora_parameters
from trainer.plan import Plan, Planned, load_schema, make_plan
from trainer.publish import Published, publish
from trainer.recipes import LoadedRecipe, load_recipe
from trainer.recipes.quick import quick_recipe
from trainer.run import train
from trainer.scale import Scale
from trainer.trackers import Tracker
from trainer.trained import TrainedRun, load_run


@dataclass(frozen=True, slots=True)
class Ready:
    """A plan and where its base's files are."""

    planned: Planned
    base_folder: Path


RecipeSource: TypeAlias = Path | LoadedRecipe
"""A recipe's file, or a recipe that was read already."""

Before: TypeAlias = Callable[["Ready"], TrainedRun]
"""Trains a recipe that another one builds on, or finds it trained."""


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


def prepare(
    workspace: Workspace,
    catalog: Catalog,
    recipe: RecipeSource,
    overrides: Sequence[str] = (),
    *,
    before: Before,
    scale: Scale | None = None,
    above: tuple[Path, ...] = (),
) -> Ready:
    """Load and check everything. Recipes that this one builds on go through ``before`` first, each on as many
    processes as it can of ``scale``; ``above`` are the recipes that asked for this one. Raises the trainer's
    errors, with line numbers."""
    loaded = load_recipe(recipe, overrides=overrides) if isinstance(recipe, Path) else recipe
    above = (*above, loaded.file.resolve())
    owner = [override for override in overrides if override.startswith("tenant=")]  # of the whole chain
    if above[:-1] and scale is not None:
        scale = scale.where_it_fits(loaded.recipe.method, loaded.recipe.settings)
    _, base, _ = catalog.base(loaded.recipe.base)
    folder = bases.folder_of(workspace, base.name)

    def trained(relative: str) -> TrainedRun:
        path = loaded.path(relative)
        if path.resolve() in above:
            raise RecipeInvalid(loaded.file.name, (Fault(loaded.file.name, f"{relative} builds on itself"),))
        first = load_recipe(path, overrides=owner)
        refuse_foreign(first.recipe.name, loaded.recipe.tenant)  # before hours of training on somebody's data
        return before(prepare(workspace, catalog, first, owner, before=before, scale=scale, above=above))

    models = {
        role: find_model(workspace, catalog, source, tenant=loaded.recipe.tenant, trained=trained)
        for role, source in wanted(loaded.recipe)
    }
    inputs = Inputs(models, endpoint_key=endpoint_key)
    planned = make_plan(loaded, catalog=catalog, base_folder=folder, inputs=inputs, scale=scale)
    return Ready(planned, folder)


def known(workspace: Workspace, ready: Ready) -> TrainedRun:
    """A ``Before`` that trains nothing, for those who only want to see a plan. Raises RunNotFinished."""
    try:
        return load_run(run_folder(workspace, ready))
    except RunNotFinished:
        raise RunNotFinished(
            f"{ready.planned.name} comes first and has not been trained",
            hint="a plan names its inputs by digest: train the recipe it builds on, or leave out --plan",
        ) from None


def quick_start(
    workspace: Workspace,
    method: str,
    *,
    tenant: str,
    adapter: str,
    base: str | None,
    data: str,
    evaluation: str | None,
    columns: Sequence[str],
    overrides: Sequence[str],
) -> LoadedRecipe:
    """The recipe of a command line; its files are relative to where the command runs."""
    return quick_recipe(
        method,
        tenant=tenant,
        adapter=adapter,
        base=base or bases.only_one(workspace),
        data=data,
        evaluation=evaluation,
        columns=columns_of(columns),
        overrides=overrides,
        folder=Path.cwd(),
    )


def run(
    workspace: Workspace,
    ready: Ready,
    sink: Progress,
    *,
    fresh: bool,
    snapshot_every: float = 60.0,
    trackers: Sequence[Tracker] = (),
    catalog: "Catalog | None" = None,
) -> TrainedRun:
    """Train, or pick up the run of an equal plan: a run folder is named by its plan. ``catalog``: where to
    look for versions that this one is to be told from."""
    name = ready.planned.name
    folder = run_folder(workspace, ready)
    return train(
        ready.planned,
        base_folder=ready.base_folder,
        run_folder=folder,
        sink=sink,
        fresh=fresh,
        snapshot_every=snapshot_every,
        trackers=tuple(trackers),
        siblings=lambda: siblings.known(catalog, name) if catalog is not None else {},
    )


def run_folder(workspace: Workspace, ready: Ready) -> Path:
    return workspace.runs / ready.planned.plan.identity().hex[:16]


def push(workspace: Workspace, catalog: Catalog, finished: TrainedRun, *, actor: str) -> Published:
    key = signer(workspace, "trainer")
    published = publish(finished, catalog=catalog, signer=key, actor=actor)
    sign(catalog, published.version, key, actor=actor)
    return published


def check_push(workspace: Workspace, catalog: Catalog, name: AdapterName) -> None:
    """May the result be pushed? Asked before hours of training, not after them.

    Raises TenantNotFound, SignerInvalid, and what the registry refuses to this key.
    """
    if isinstance(catalog, LocalCatalog):
        catalog.tenant(name.tenant)
    else:
        catalog.missing(name.tenant, [Digest.of(b"")])
    key = signer(workspace, "trainer").public
    if catalog.trusted().get(key.id) != key:
        raise SignerInvalid(
            f"the registry does not trust this workspace's trainer key {key.id}, so no report would count",
            hint="tenon signer show trainer > trainer.json here; there: tenon signer trust trainer.json",
        )


def promote(catalog: Catalog, finished: TrainedRun, version: Digest, *, actor: str) -> Live:
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
    workspace: Workspace, catalog: Catalog, ref: Ref, suite: Path, schema: Path | None, sink: Progress
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
        [name, _shown(name, baseline[name]), _shown(name, after), str(after.n)]
        for name, after in sorted(metrics.items())
        if name in baseline
    ]


def memory(ready: Ready) -> list[list[str]]:
    """Rows for a table: what takes memory, how much of it on a CPU and on a GPU. Estimates."""
    cpu, gpu = (estimate(ready.planned, ready.base_folder, on_gpu=on_gpu) for on_gpu in (False, True))
    parts = [(name, amount, dict(gpu.parts())[name]) for name, amount in cpu.parts() if amount]
    return [
        [name.replace("_", " "), in_words(one), in_words(other)]
        for name, one, other in (*parts, ("together", cpu.total, gpu.total))
    ]


def trained_parameters(ready: Ready) -> int:
    return lora_parameters(ready.planned.plan.lora, ready.planned.base.modules)


def beside(run: TrainedRun, role: str) -> list[list[str]]:
    """Rows for a table: metric, this adapter, the model of ``role``, difference, cases."""
    other = run.beside[role]
    return [
        [
            name,
            *(_shown(name, one) for one in (run.metrics[name], theirs, other.difference[name])),
            str(theirs.n),
        ]
        for name, theirs in sorted(other.metrics.items())
        if name in run.metrics and name in other.difference
    ]


_PLAIN: Final = frozenset({"words", "kl", "score_margin"})
"""Metrics that are no shares: a number of words, nats a token."""


def _shown(name: str, metric: Metric) -> str:
    if name in _PLAIN:
        return f"{metric.value:.3g} ± {metric.stderr:.2g}"
    return f"{metric.value:.1%} ± {metric.stderr:.1%}"


def _live(catalog: Catalog, name: AdapterName) -> Digest | None:
    try:
        return catalog.resolve(Ref(name, alias=LIVE))
    except AliasNotFound:
        return None
