"""From a recipe to a plan: everything that decides the result, pinned before anything is trained."""

import platform
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
from trainer.datasets import Dataset, load_dataset, refuse_leaks
from trainer.errors import BaseDiffers, DataInvalid, Fault, LibrariesMissing
from trainer.evaluation.suite import Suite, load_suite, schema_fault
from trainer.ports import Catalog
from trainer.recipes import LoadedRecipe, LoraSettings, SftSettings

LIBRARIES: Final = ("torch", "transformers", "trl", "peft", "tokenizers", "accelerate", "datasets")
"""Whatever can change the weights that the same recipe gives."""


class PlannedEvaluation(Document):
    max_new_tokens: int
    batch_size: int
    answer_schema: Digest | None


class Plan(Document):
    """What will be computed from what. Two equal plans give the same adapter on one machine, so an adapter
    that was trained by an equal plan is reused. No paths and no times."""

    kind: Literal["tenon.plan/v1"] = "tenon.plan/v1"
    tenant: Name
    adapter: Name
    method: Literal["sft"]
    seed: int
    base: Digest
    base_name: str
    recipe: Digest
    data: tuple[DataRef, ...]
    lora: LoraSettings
    sft: SftSettings
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
            environment=self.environment,
        )


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan and the checked inputs that its digests pin, in memory: files may change under a long run."""

    plan: Plan
    base: Base
    contract: Contract
    dataset: Dataset
    suite: Suite
    schema: dict[str, Any] | None

    @property
    def name(self) -> AdapterName:
        return self.plan.name


def make_plan(loaded: LoadedRecipe, *, catalog: Catalog, base_folder: Path) -> Planned:
    """Resolve and check everything; seconds, and no training library is imported.

    Raises BaseNotFound, BaseDiffers, DataInvalid, DataLeak, LibrariesMissing.
    """
    recipe = loaded.recipe
    digest, base, contract = catalog.base(recipe.base)
    check_base(base, base_folder)
    dataset = load_dataset(loaded.path(recipe.data.train))
    suite = load_suite(loaded.path(recipe.data.evaluation))
    refuse_leaks(dataset, [(case.line, case.messages) for case in suite.cases], evaluation=suite.name)
    named = recipe.evaluation.json_schema
    schema, schema_digest = (None, None) if named is None else load_schema(loaded.path(named))
    plan = Plan(
        tenant=recipe.tenant,
        adapter=recipe.adapter,
        method=recipe.method,
        seed=recipe.seed,
        base=digest,
        base_name=base.name,
        recipe=recipe.identity(),
        data=(
            DataRef(role="train", digest=dataset.digest, rows=len(dataset.conversations)),
            DataRef(role="evaluation", digest=suite.digest, rows=len(suite.cases)),
        ),
        lora=recipe.lora,
        sft=recipe.sft,
        evaluation=PlannedEvaluation(
            max_new_tokens=recipe.evaluation.max_new_tokens,
            batch_size=recipe.evaluation.batch_size,
            answer_schema=schema_digest,
        ),
        gate=recipe.gate_policy(),
        environment=environment(),
    )
    return Planned(plan, base, contract, dataset, suite, schema)


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
