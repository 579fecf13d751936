"""``tenon record``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import record_ship, render
from server.cli.options import At, Json, root

Records = Annotated[
    Path | None, typer.Option("--records", help="Routers' record folders [default: the workspace's]")
]


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="What routers wrote down about requests.", no_args_is_help=True)
    group.command("show")(show)
    group.command("ship")(record_ship.ship)
    group.command("forget")(forget)
    app.add_typer(group, name="record")


def show(
    record: Annotated[str, typer.Argument(help="Its id, from the header X-Tenon-Record")],
    text: Annotated[bool, typer.Option("--text", help="Decrypt what was asked and answered")] = False,
    key: Annotated[
        Path | None, typer.Option("--retention-key", help="The router's key [default: the workspace's]")
    ] = None,
    records: Records = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Show a request's record; with --text also the texts, if its policy kept them."""
    from server.assembly.kept_texts import find_record, open_text
    from server.workspace import find

    folder = records or find(root(workspace)).records
    found = find_record(folder, record)
    fields = {name: value for name, value in found.model_dump(mode="json").items() if value is not None}
    if text:
        opened = open_text(folder, found, key or find(root(workspace)).retention_key)
        fields["question"] = opened.question.decode("utf-8", "replace")
        fields["answer_text"] = opened.answer.decode("utf-8", "replace")
    if json:
        render.data(fields)
    else:
        render.table(found.id, ["what", "value"], [[name, str(value)] for name, value in fields.items()])


def forget(
    tenant: Annotated[str, typer.Argument(help="Whose texts and keyed digests become unreadable")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    records: Records = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Delete a tenant's retention keys: nobody can read what was kept until now, for good. Records stay."""
    from server.assembly.kept_texts import forget_tenant
    from server.workspace import find

    folder = records or find(root(workspace)).records
    if not yes:
        typer.confirm(
            f"Make all kept texts of {tenant} in {folder} unreadable, for good?", abort=True, err=True
        )
    forgotten = forget_tenant(folder, tenant)
    if json:
        render.data({"writers": forgotten})
    else:
        render.text(f"forgotten by: {', '.join(forgotten)}" if forgotten else "there was nothing to forget")
