"""``tenon record ship``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, root


def ship(
    to: Annotated[
        str | None,
        typer.Option("--to", help="Folder, s3:PREFIX/ in the bucket, or registry [default: TENON_SHIP_TO]"),
    ] = None,
    records: Annotated[
        Path | None, typer.Option("--records", help="Routers' record folders [default: TENON_RECORDS_DIR]")
    ] = None,
    every: Annotated[
        float | None, typer.Option("--every", min=1, help="Seconds; go on [default: TENON_SHIP_SECONDS]")
    ] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Copy records that are under a signed head to Parquet files or into the registry's database, each record
    once. Stopped or killed at any moment, the next run goes on where this one was."""
    from server.assembly.shipping import opened, ship_all, ship_every
    from server.settings import ShipSettings, load
    from server.workspace import find

    settings = load(ShipSettings)
    to = to or settings.ship_to
    if to is None:
        raise typer.BadParameter("give --to, or set TENON_SHIP_TO")
    every = every or settings.ship_seconds
    folder = records or settings.records_dir
    local = to == "registry" and settings.control_url is None
    at = find(root(workspace)) if local or folder is None else None
    folder = folder or find(root(workspace)).records
    with opened(to, settings, at) as place:
        rounds = ship_every(every, folder, place, failed=render.error) if every is not None else None
        for shipped in rounds or [ship_all(folder, place)]:
            if json:
                render.data({"shipped": shipped})
            else:
                for writer, count in shipped.items():
                    render.note(f"{writer}: {count} records shipped")
