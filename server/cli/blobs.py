"""``tenon blobs``"""

from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, root


def install(app: typer.Typer) -> None:
    group = typer.Typer(
        help="The stored bytes of adapters, on the registry's own machine.", no_args_is_help=True
    )
    group.command("gc")(gc)
    app.add_typer(group, name="blobs")


def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Remove them; without it, only look")] = False,
    grace: Annotated[float, typer.Option("--grace", help="Hours that unnamed bytes are left alone")] = 24,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Remove bytes that no version names any more, abandoned uploads and what crashes left."""
    from datetime import timedelta

    from registry.clock import SystemClock
    from server.assembly.blobs import open_storage
    from server.assembly.catalog import open_catalog
    from server.settings import RegistrySettings, load
    from server.workspace import find

    here = find(root(workspace))
    settings = load(RegistrySettings)
    storage = open_storage(here, settings)
    found = open_catalog(here, settings).collect(
        storage.blobs, storage.uploads, clock=SystemClock(), grace=timedelta(hours=grace), delete=delete
    )
    size = sum(item.size for item in found.removed)
    if json:
        render.data(
            {
                "deleted": delete,
                "blobs": [
                    {
                        "digest": item.digest,
                        "size": item.size,
                        "renewed_at": item.renewed_at.isoformat(),
                    }
                    for item in found.removed
                ],
                "kept": {"count": found.kept.count, "size": found.kept.size},
                "uploads": {"count": found.uploads.count, "size": found.uploads.size},
                "halves": {"count": found.halves.count, "size": found.halves.size},
                "claims": found.claims,
            }
        )
        return
    rows = [
        ["blobs that no version names", f"{len(found.removed):,}", f"{size:,}"],
        ["abandoned uploads", f"{found.uploads.count:,}", f"{found.uploads.size:,}"],
        ["halves left by crashes", f"{found.halves.count:,}", f"{found.halves.size:,}"],
        ["claims to blobs that are gone", f"{found.claims:,}", ""],
        ["blobs that stay", f"{found.kept.count:,}", f"{found.kept.size:,}"],
    ]
    render.table("", ["what", "how many", "bytes"], rows)
    if delete:
        render.note("All but the last line was removed")
    else:
        render.note("Nothing was removed; do it with: tenon blobs gc --delete")
