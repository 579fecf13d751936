"""``tenon adapter``"""

from typing import Annotated

import typer

from server.cli import oci, render
from server.cli.adapter_diff import diff
from server.cli.adapter_merge import merge
from server.cli.adapter_pull import pull
from server.cli.adapter_push import push
from server.cli.adapter_reference import reference
from server.cli.adapter_show import show
from server.cli.options import At, Json, place


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Versions of tenants' adapters.", no_args_is_help=True)
    group.command("push")(push)
    group.command("pull")(pull)
    group.command("reference")(reference)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("diff")(diff)
    group.command("merge")(merge)
    oci.install(group)
    app.add_typer(group, name="adapter")


def list_(
    tenant: Annotated[str | None, typer.Argument(help="Only this tenant's")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """List adapters and their versions, oldest push first."""
    catalog = place(workspace).catalog
    rows = [(name, item) for name in catalog.adapters(tenant) for item in catalog.versions(name)]
    if json:
        render.data(
            [
                {
                    "adapter": str(name),
                    "version": item.version,
                    "pushed_at": item.pushed_at,
                    "state": item.state,
                    "aliases": list(item.aliases),
                }
                for name, item in rows
            ]
        )
        return
    render.table(
        "",
        ["adapter", "version", "pushed", "state", "aliases"],
        [
            [str(name), item.version.short, item.pushed_at, item.state, ", ".join(item.aliases)]
            for name, item in rows
        ],
    )
    if not rows:
        render.note("Nothing here yet; push one with: tenon adapter push FOLDER --as TENANT/NAME --base BASE")
