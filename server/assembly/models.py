"""Models that a recipe points at: registered versions, other recipes' adapters, bases."""

import shutil
from collections.abc import Callable

from registry.catalog.local import LocalCatalog
from registry.names import Ref
from server.assembly import bases
from server.workspace import Workspace
from trainer.inputs import ModelInput, adapter_digest
from trainer.recipes.sources import AdapterSource, Teacher
from trainer.trained import TrainedRun


def find_model(
    workspace: Workspace,
    catalog: LocalCatalog,
    source: AdapterSource | Teacher,
    *,
    base: str,
    trained: Callable[[str], TrainedRun],
) -> ModelInput:
    """``base`` is the name of the recipe's own base; ``trained`` gives the run of another recipe.

    Raises BaseNotFound, VersionNotFound, AliasNotFound, and whatever that training raises.
    """
    if source.recipe is not None:
        run = trained(source.recipe)
        folder = bases.folder_of(workspace, run.plan.base_name)
        return ModelInput(adapter_digest(run.adapter), folder, run.adapter)
    if source.version is not None:
        version = catalog.resolve(Ref.parse(source.version))
        _, document, _ = catalog.base(catalog.manifest(version).base)
        files = workspace.inputs / version.hex
        if files.exists():
            shutil.rmtree(files)  # somebody may have touched it since
        catalog.export(version, files)
        return ModelInput(version, bases.folder_of(workspace, document.name), files, version=True)
    digest, document, _ = catalog.base(getattr(source, "base", None) or base)
    return ModelInput(digest, bases.folder_of(workspace, document.name))
