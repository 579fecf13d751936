"""``tenon record ship``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, root


def ship(
    to: Annotated[str, typer.Option("--to", help="Folder, or s3:PREFIX/ in the bucket of TENON_S3_BUCKET")],
    records: Annotated[
        Path | None, typer.Option("--records", help="Routers' record folders [default: the workspace's]")
    ] = None,
    every: Annotated[
        float | None, typer.Option("--every", min=1, help="Seconds; go on shipping until stopped")
    ] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Copy records that are under a signed head to Parquet files, each record once. Stopped or killed at any
    moment, the next run goes on where this one was."""
    from server.assembly.shipping import shelf_at, ship_all, ship_every
    from server.settings import StorageSettings, load
    from server.workspace import find

    folder = records or find(root(workspace)).records
    shelf = shelf_at(to, load(StorageSettings))
    for shipped in [ship_all(folder, shelf)] if every is None else ship_every(every, folder, shelf):
        if json:
            render.data({"shipped": shipped})
        else:
            for writer, count in shipped.items():
                render.note(f"{writer}: {count} records shipped")
