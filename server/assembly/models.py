"""Models that a recipe points at: registered versions, other recipes' adapters, bases."""

import shutil
from collections.abc import Callable

from registry.names import AdapterName, Ref
from server.assembly import bases
from server.assembly.place import Catalog
from server.workspace import Workspace
from trainer.errors import ForeignModel
from trainer.inputs import ModelInput, adapter_digest
from trainer.recipes.sources import AdapterSource, Teacher
from trainer.trained import TrainedRun


def find_model(
    workspace: Workspace,
    catalog: Catalog,
    source: AdapterSource | Teacher,
    *,
    tenant: str,
    trained: Callable[[str], TrainedRun],
) -> ModelInput:
    """``tenant`` is the recipe's own; ``trained`` gives the run of another recipe.

    Raises ForeignModel, BaseNotFound, VersionNotFound, AliasNotFound, and whatever that training raises.
    """
    if source.recipe is not None:
        run = trained(source.recipe)
        refuse_foreign(run.name, tenant)
        folder = bases.folder_of(workspace, run.plan.base_name)
        return ModelInput(adapter_digest(run.adapter), run.plan.base, folder, run.adapter)
    if source.version is not None:
        ref = Ref.parse(source.version)
        refuse_foreign(ref.name, tenant)  # before anything is looked up: what is not ours does not exist
        version = catalog.resolve(ref)
        base, document, _ = catalog.base(catalog.manifest(version).base)
        files = workspace.inputs / version.hex
        if files.exists():
            shutil.rmtree(files)  # somebody may have touched it since
        catalog.export(version, files)
        return ModelInput(version, base, bases.folder_of(workspace, document.name), files, version=True)
    digest, document, _ = catalog.base(getattr(source, "base", None) or "")
    return ModelInput(digest, digest, bases.folder_of(workspace, document.name))


def refuse_foreign(name: AdapterName, tenant: str) -> None:
    """Whoever learns from an adapter learns what it was taught. Raises ForeignModel."""
    if name.tenant != tenant:
        raise ForeignModel(f"{name} is not an adapter of {tenant}")
