"""A stored version as a base of its own."""

import tempfile
from pathlib import Path
from typing import Literal

from registry.catalog.local.catalog import LocalCatalog
from registry.digests import Digest
from registry.names import Ref
from server.assembly import bases
from server.workspace import Workspace


def merge_version(
    workspace: Workspace,
    catalog: LocalCatalog,
    ref: Ref,
    out: Path,
    *,
    precision: Literal["float32", "bfloat16"],
) -> Digest:
    """Write the version's base with the version in its weights to ``out``; which version that was.

    Raises VersionNotFound, BaseNotFound, BaseDiffers, MergeRefused.
    """
    from trainer.learning.merge import merge
    from trainer.plan import check_base

    version = catalog.resolve(ref)
    _, document, _ = catalog.base(catalog.manifest(version).base)
    folder = bases.folder_of(workspace, document.name)
    check_base(document, folder)
    with tempfile.TemporaryDirectory(prefix="tenon-merge-") as scratch:
        adapter = Path(scratch) / "adapter"
        catalog.export(version, adapter)
        merge(folder, adapter, out, precision=precision)
    return version
