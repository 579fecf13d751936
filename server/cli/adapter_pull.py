"""``tenon adapter pull``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, place


def pull(
    ref: Annotated[str, typer.Argument(help="tenant/adapter:alias or tenant/adapter@sha256:…")],
    folder: Annotated[Path, typer.Argument(help="New folder to write")],
    json: Json = False,
    workspace: At = None,
) -> None:
    """Write a version's files, every byte checked. Interrupted, the same command goes on where it stopped."""
    from registry.names import Ref
    from server.cli.transfer import bar

    opened = place(workspace)
    version = opened.catalog.resolve(Ref.parse(ref))
    if opened.remote is not None:
        with bar("pull") as progress:
            manifest = opened.remote.export(version, folder, progress=progress)
    else:
        manifest = opened.catalog.export(version, folder)
    if json:
        files = {file.path: file.digest for file in manifest.files}
        render.data({"version": version, "folder": str(folder), "files": files})
    else:
        render.note(f"{len(manifest.files)} files of {version.short} written to {folder}")
