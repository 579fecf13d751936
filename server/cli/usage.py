"""``tenon usage``"""

from datetime import timedelta
from typing import Annotated, Literal

import typer

from server.cli import render
from server.cli.options import At, Json, place


def install(app: typer.Typer) -> None:
    app.command("usage")(usage)


def usage(
    tenant: Annotated[str, typer.Argument(help="Whose")],
    first_day: Annotated[
        str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="[default: 29 days ago]")
    ] = None,
    last_day: Annotated[
        str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="[default: today, UTC]")
    ] = None,
    by: Annotated[Literal["version", "day"], typer.Option("--by", help="What a row sums up")] = "version",
    json: Json = False,
    workspace: At = None,
) -> None:
    """What a tenant has used, counted by the routers."""
    from registry.clock import SystemClock
    from server.assembly.accounts import summed

    today = SystemClock().now().date()
    lines = place(workspace).catalog.usage(
        tenant,
        first_day=first_day or (today - timedelta(days=29)).isoformat(),
        last_day=last_day or today.isoformat(),
    )
    if json:
        render.data([line.model_dump(mode="json") for line in lines])
        return
    rows = [
        [what, f"{total.requests:,}", f"{total.prompt_tokens:,}", f"{total.completion_tokens:,}"]
        for what, total in summed(lines, by=by).items()
    ]
    render.table("", [by, "requests", "prompt tokens", "completion tokens"], rows)
