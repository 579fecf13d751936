"""``tenon record prune``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, root


def prune(
    keep: Annotated[float, typer.Option("--keep", min=0, metavar="DAYS", help="Keep what is younger")],
    to: Annotated[
        list[str] | None,
        typer.Option("--to", help="Where they were shipped to; all, if several [default: TENON_SHIP_TO]"),
    ] = None,
    unshipped: Annotated[
        bool, typer.Option("--unshipped", help="Also what was shipped nowhere: it is gone for good")
    ] = False,
    records: Annotated[
        Path | None, typer.Option("--records", help="Routers' record folders [default: TENON_RECORDS_DIR]")
    ] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Remove old records, and the texts kept of them, from a router's disk: whole segments, once a signed
    head in the log covers them and they were shipped. The router may be running."""
    from server.assembly.pruning import prune_all
    from server.settings import ShipSettings, load
    from server.workspace import find

    settings = load(ShipSettings)
    if to and unshipped:
        raise typer.BadParameter("--unshipped looks at no --to: leave one of them out")
    targets = [] if unshipped else to or [each for each in [settings.ship_to] if each]
    if not targets and not unshipped:
        raise typer.BadParameter("give --to, or set TENON_SHIP_TO, or say --unshipped")
    folder = records or settings.records_dir
    at = find(root(workspace)) if settings.control_url is None or folder is None else None
    done = prune_all(folder or find(root(workspace)).records, targets, settings, at, days=keep)
    if json:
        render.data(
            {name: {"records": e.records, "begins": e.begins, "freed": e.freed} for name, e in done.items()}
        )
        return
    for name, each in done.items():
        freed = f"{each.records} records pruned, {each.freed / 1e6:,.1f} MB freed"
        render.note(f"{name}: {freed}; its first is {each.begins} now")
