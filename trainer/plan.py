"""From a recipe to a plan: everything that decides the result, pinned before anything is trained."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

from registry import canonical
from registry.bases import describe
from registry.canonical import Document
from registry.contract import Contract
from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.evidence import GatePolicy
from registry.manifests import DataRef, Provenance
from registry.models import Base
from registry.names import AdapterName, Name
from trainer.datasets import Dataset, load_rows, locate, refuse_leaks
from trainer.datasets.schemas import schema_fault
from trainer.datasets.split import as_cases, split
from trainer.errors import BaseDiffers, DataInvalid, Fault, LibrariesMissing
from trainer.evaluation.suite import load_suite
from trainer.inputs import START, TEACHER, Inputs, ModelInput
from trainer.learning.job import TeacherModel
from trainer.methods import METHODS, Method
from trainer.ports import Catalog
from trainer.recipes import LoadedRecipe, LoraSettings
from trainer.recipes.methods import MethodName, Settings
from trainer.recipes.sources import RewardSettings, Teacher
from trainer.rewards import Resources, Reward, build
from trainer.scale import Scale

LIBRARIES: Final = ("torch", "transformers", "trl", "peft", "tokenizers", "accelerate", "datasets")
"""Whatever can change the weights that the same recipe gives."""


class PlannedEvaluation(Document):
    max_new_tokens: int
    batch_size: int
    answer_schema: Digest | None


class Plan(Document):
    """What will be computed from what. No paths and no times. An adapter that was trained by an equal plan is
    reused.

    Two equal plans give the same adapter on one machine, unless an endpoint teaches or judges: a plan knows
    only its URL and model, and it may answer otherwise tomorrow. What a teacher answered is pinned by the
    run's proof (``answers``); a judge's marks show only as rewards in the run's metrics.
    """

    kind: Literal["tenon.plan/v1"] = "tenon.plan/v1"
    tenant: Name
    adapter: Name
    method: MethodName
    seed: int
    base: Digest
    base_name: str
    recipe: Digest
    data: tuple[DataRef, ...]
    inputs: dict[str, Digest]
    """Role -> the model that it stands for: where training starts, who teaches, who judges."""
    parent: Digest | None
    """``inputs["start"]``, when that is a registered version."""
    lora: LoraSettings
    settings: Settings
    evaluation: PlannedEvaluation
    gate: GatePolicy
    environment: dict[str, str]

    @property
    def name(self) -> AdapterName:
        return AdapterName(self.tenant, self.adapter)

    @property
    def suite(self) -> Digest:
        return next(ref.digest for ref in self.data if ref.role == "evaluation")

    def provenance(self) -> Provenance:
        return Provenance(
            method=self.method,
            recipe=self.recipe,
            plan=self.identity(),
            data=self.data,
            parent=self.parent,
            teacher=self.inputs.get(TEACHER),
            inputs={role: digest for role, digest in self.inputs.items() if role not in (START, TEACHER)},
            environment=self.environment,
        )


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan and the checked inputs that its digests pin, in memory: files may change under a long run."""

    plan: Plan
    base: Base
    contract: Contract
    dataset: Dataset[Any]
    """Training rows, of the shape that the method learns from."""
    suite: Dataset[Any]
    """Held-out rows: cases, or for a reward model rows like those it was trained on."""
    schema: dict[str, Any] | None
    rewards: tuple[Reward, ...]
    verifiers: tuple[Reward, ...]
    start: ModelInput | None
    teacher: TeacherModel | None
    models: Mapping[str, ModelInput]
    """All that ``plan.inputs`` names, by role."""

    @property
    def name(self) -> AdapterName:
        return self.plan.name


def make_plan(
    loaded: LoadedRecipe,
    *,
    catalog: Catalog,
    base_folder: Path,
    inputs: Inputs | None = None,
    scale: Scale | None = None,
) -> Planned:
    """Resolve and check everything; seconds, and no training library is imported.

    ``inputs`` are the models that ``trainer.inputs.wanted`` names. Raises BaseNotFound, BaseDiffers,
    RecipeInvalid, DataInvalid, DataLeak, ScaleInvalid, LibrariesMissing.
    """
    recipe, inputs, scale = loaded.recipe, inputs or Inputs(), scale or Scale()
    scale.check(recipe.method, recipe.settings)
    method = METHODS[recipe.method]
    digest, base, contract = catalog.base(recipe.base)
    check_base(base, base_folder)
    dataset, suite = read_data(loaded, method)
    refuse_leaks(dataset, suite)
    named = recipe.evaluation.json_schema
    schema, schema_digest = (None, None) if named is None else load_schema(loaded.path(named))
    start = inputs.get(START)
    if start is not None and start.base != digest:
        raise BaseDiffers(
            f"the adapter to start from is for another base than {base.name}",
            hint=f"start from an adapter for {base.name}, or train on the base that this one is for",
            base=base.name,
        )
    plan = Plan(
        tenant=recipe.tenant,
        adapter=recipe.adapter,
        method=recipe.method,
        seed=recipe.seed,
        base=digest,
        base_name=base.name,
        recipe=recipe.identity(),
        data=(
            DataRef(role="train", digest=dataset.digest, rows=len(dataset.rows)),
            DataRef(role="evaluation", digest=suite.digest, rows=len(suite.rows)),
        ),
        inputs={role: model.digest for role, model in inputs.models.items()},
        parent=start.digest if start is not None and start.version else None,
        lora=recipe.lora,
        settings=recipe.settings,
        evaluation=PlannedEvaluation(
            max_new_tokens=recipe.evaluation.max_new_tokens,
            batch_size=recipe.evaluation.batch_size,
            answer_schema=schema_digest,
        ),
        gate=recipe.gate_policy(),
        environment=environment() | scale.environment(),
    )
    rewards = _rewards(recipe.rewards, "rewards", schema, inputs)
    measured = _rewards(recipe.evaluation.verifiers, "evaluation.verifiers", schema, inputs)
    return Planned(
        plan=plan,
        base=base,
        contract=contract,
        dataset=dataset,
        suite=suite,
        schema=schema,
        rewards=rewards,
        verifiers=measured or rewards,
        start=start,
        teacher=_teacher(recipe.teacher, inputs),
        models=inputs.models,
    )


def read_data(loaded: LoadedRecipe, method: Method) -> tuple[Dataset[Any], Dataset[Any]]:
    """(training rows, held-out rows). Raises DataInvalid and what sources raise."""
    files = loaded.recipe.data
    source = locate(loaded.file, files.train)
    rows: Dataset[Any] = load_rows(source, shape=method.shape, columns=files.columns)
    verified = bool(loaded.recipe.rewards or loaded.recipe.evaluation.verifiers)
    if files.evaluation is None:
        rows, held_out = split(rows, share=files.split)
        return rows, held_out if method.scores else as_cases(held_out)
    held = locate(loaded.file, files.evaluation)
    if method.scores:
        columns = files.evaluation_columns or files.columns
        return rows, load_rows(held, shape=method.shape, columns=columns)
    return rows, load_suite(held, verified=verified, columns=files.evaluation_columns)


def _rewards(
    lines: Sequence[RewardSettings], name: str, schema: dict[str, Any] | None, inputs: Inputs
) -> tuple[Reward, ...]:
    ready = []
    for place, line in enumerate(lines):
        model = inputs.get(f"{name}[{place}]")
        resources = Resources(
            schema=schema,
            base_folder=None if model is None else model.base_folder,
            adapter_folder=None if model is None else model.adapter_folder,
            endpoint=line.endpoint,
            endpoint_key=inputs.key_for(line.endpoint),
        )
        ready.append((line, resources))
    return build(ready)


def _teacher(teacher: Teacher | None, inputs: Inputs) -> TeacherModel | None:
    if teacher is None:
        return None
    model = inputs.get(TEACHER)
    if model is None:
        return TeacherModel(endpoint=teacher.endpoint, endpoint_key=inputs.key_for(teacher.endpoint))
    return TeacherModel(base_folder=model.base_folder, adapter_folder=model.adapter_folder)


def load_schema(path: Path) -> tuple[dict[str, Any], Digest]:
    """A JSON Schema file and the digest of its bytes. Raises DataInvalid."""
    try:
        raw = path.read_bytes()
        schema = canonical.decode(raw)
        trouble = schema_fault(schema)
    except OSError as error:
        trouble = error.strerror or "cannot be read"
    except InvalidDocument as error:
        trouble = error.message
    if trouble is not None:
        raise DataInvalid(path.name, (Fault(path.name, trouble),))
    return schema, Digest.of(raw)


def environment() -> dict[str, str]:
    """Versions of what can change the result, read without importing any of it."""
    try:
        versions = {name: metadata.version(name) for name in LIBRARIES}
    except metadata.PackageNotFoundError as error:
        raise LibrariesMissing(f"{error.name} is not installed", library=error.name) from None
    return {**versions, "python": platform.python_version(), "machine": platform.machine()}


def check_base(registered: Base, folder: Path) -> None:
    """Raise BaseDiffers unless the files are those that were registered: an adapter fits no others."""
    found = describe(folder, name=registered.name, revision=registered.revision)
    differing = [field for field in Base.model_fields if getattr(found, field) != getattr(registered, field)]
    if differing:
        raise BaseDiffers(
            f"the folder is not the registered base {registered.name}: {', '.join(differing)} differ",
            base=registered.name,
            differing=tuple(differing),
        )
