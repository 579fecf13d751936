"""``tenon record fetch``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, root


def fetch(
    into: Annotated[Path, typer.Argument(help="Folder that gets one for each writer")],
    source: Annotated[
        str | None,
        typer.Option("--from", help="Where records were shipped to [default: TENON_SHIP_TO]"),
    ] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Bring shipped records back as routers write them: for log verify, exposure, record show and receipt
    prove with --records. They are checked there, against the heads in the registry's log."""
    from server.assembly.fetching import fetch_all
    from server.settings import ShipSettings, load
    from server.workspace import find

    settings = load(ShipSettings)
    source = source or settings.ship_to
    if source is None:
        raise typer.BadParameter("give --from, or set TENON_SHIP_TO")
    found = fetch_all(source, into, settings, find(root(workspace)) if source == "registry" else None)
    if json:
        render.data({"records": found})
    else:
        for writer, count in found.items():
            render.note(f"{writer}: {count} records")
