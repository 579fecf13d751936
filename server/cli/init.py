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
    database_url_file: Annotated[
        Path | None,
        typer.Option(
            help="File with a PostgreSQL URL: the registry goes there; with --upgrade, only this database"
        ),
    ] = None,
) -> None:
    """Make a workspace: a registry (SQLite or PostgreSQL), blobs and signing keys."""
    from server.assembly.catalog import initialise, upgrade_database, upgrade_workspace

    if upgrade and database_url_file:
        upgrade_database(database_url_file)
        render.note("The database is up to date")
    elif upgrade:
        render.note(f"Workspace {upgrade_workspace(folder).root} is up to date")
    else:
        made = initialise(folder, database_url_file=database_url_file)
        render.note(f"Workspace ready at {made.root}")
        render.note("next: tenon base add NAME FOLDER, then tenon tenant add NAME")
