"""``tenon usage``"""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from server.cli import render
from server.cli.options import At, Json, place

if TYPE_CHECKING:
    from registry.usage import UsageSum


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

    today = SystemClock().now().date()
    sums = place(workspace).catalog.usage_sums(
        tenant,
        first_day=first_day or (today - timedelta(days=29)).isoformat(),
        last_day=last_day or today.isoformat(),
        by=by,
    )
    if json:
        render.data([each.model_dump(mode="json") for each in sums])
        return
    counts = [(each.requests, each.prompt_tokens, each.completion_tokens) for each in sums]
    named = [(_name(each), *count) for each, count in zip(sums, counts, strict=True)]
    named.append(("together", *(sum(column) for column in zip((0, 0, 0), *counts, strict=True))))
    rows = [[name, *(f"{count:,}" for count in row)] for name, *row in named]
    render.table("", [by, "requests", "prompt tokens", "completion tokens"], rows)


def _name(one: "UsageSum") -> str:
    return one.day or f"{one.tenant}/{one.adapter}@{one.version.short if one.version else ''}"
