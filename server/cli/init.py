"""``tenon init``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import Json


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
    json: Json = False,
) -> None:
    """Make a workspace: a registry (SQLite or PostgreSQL), blobs and signing keys."""
    from server.assembly.catalog import initialise, upgrade_database, upgrade_workspace

    if upgrade and database_url_file:
        upgrade_database(database_url_file)
        root, said = None, ["The database is up to date"]
    elif upgrade:
        root = upgrade_workspace(folder).root
        said = [f"Workspace {root} is up to date"]
    else:
        root = initialise(folder, database_url_file=database_url_file).root
        said = [f"Workspace ready at {root}", "next: tenon base add NAME FOLDER, then tenon tenant add NAME"]
    if json:
        render.data({"workspace": None if root is None else str(root), "upgraded": upgrade})
        return
    for line in said:
        render.note(line)
