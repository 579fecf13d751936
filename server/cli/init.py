"""``tenon init``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render


def install(app: typer.Typer) -> None:
    app.command("init")(init)


def init(
    folder: Annotated[Path, typer.Argument(help="Where the workspace lives")] = Path(".tenon"),
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Bring an existing database up to date")] = False,
) -> None:
    """Make a workspace: a registry (SQLite), blobs and signing keys in one folder."""
    from server.assembly.catalog import initialise, upgrade_workspace

    if upgrade:
        render.note(f"Workspace {upgrade_workspace(folder).root} is up to date")
    else:
        render.note(f"Workspace ready at {initialise(folder).root}")
        render.note("next: tenon base add NAME FOLDER, then tenon tenant add NAME")
