"""``tenon adapter merge``"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from server.cli import render
from server.cli.options import At, Json, root


def merge(
    ref: Annotated[str, typer.Argument(help="tenant/adapter:alias or tenant/adapter@sha256:…")],
    folder: Annotated[Path, typer.Argument(help="New folder to write")],
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option("--dtype", help="Precision of the written weights")
    ] = "float32",
    json: Json = False,
    workspace: At = None,
) -> None:
    """Write the base with the version merged into its weights, as a folder that tenon base add takes."""
    from registry.names import Ref
    from server.assembly.catalog import open_catalog
    from server.assembly.merging import merge_version
    from server.workspace import find

    place = find(root(workspace))
    version = merge_version(place, open_catalog(place), Ref.parse(ref), folder, precision=dtype)
    if json:
        render.data({"version": version, "folder": str(folder), "dtype": dtype})
    else:
        render.note(f"{version.short} and its base written to {folder}; register it with: tenon base add")
