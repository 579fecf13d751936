"""``tenon log``"""

from typing import Annotated

import typer

from registry.errors import LogCorrupt
from server.cli import render
from server.cli.options import At, Json, root


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="The append-only log of every change.", no_args_is_help=True)
    group.command("verify")(verify)
    group.command("show")(show)
    group.command("keys")(keys)
    app.add_typer(group, name="log")


def verify(
    blobs: Annotated[bool, typer.Option(help="Also read every stored blob")] = True,
    records: Annotated[bool, typer.Option(help="Also check the request records")] = True,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Check the whole history: entries, signed heads, state, blobs and request records."""
    from server.assembly.audit import audit
    from server.workspace import find

    result = audit(find(root(workspace)), blobs=blobs, records=records)
    if json:
        render.data(
            {
                "ok": not result.faults,
                "entries": result.entries,
                "blobs": result.blobs,
                "records": result.records,
                "faults": [{"where": fault.where, "what": fault.what} for fault in result.faults],
            }
        )
    if result.faults:
        raise LogCorrupt(
            f"{len(result.faults)} fault(s) found",
            faults=[f"{fault.where}: {fault.what}" for fault in result.faults],
        )
    if not json:
        counts = f"{result.entries} entries, {result.blobs} blobs, {result.records} request records"
        render.note(f"ok: {counts} verified")
        if result.unsealed:
            render.note(f"the newest {result.unsealed} records are not under a signed head yet")


def show(
    last: Annotated[int, typer.Option("--last", help="How many entries")] = 20,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Show the newest entries."""
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    catalog = open_catalog(find(root(workspace)))
    entries = catalog.entries(max(0, catalog.snapshot().size - last), last)
    if json:
        render.data([entry.model_dump(mode="json") for entry in entries])
    else:
        render.table(
            "",
            ["entry", "at", "who", "what", "on"],
            [[str(e.index), e.at, e.actor, e.kind, e.subject] for e in entries],
        )


def keys(workspace: At = None) -> None:
    """Print the public keys that this registry trusts, as `tenon receipt verify --trust` reads them."""
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    trusted = open_catalog(find(root(workspace))).trusted()
    render.data([key.model_dump(mode="json") for key in trusted.values()])
