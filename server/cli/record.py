"""``tenon record``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import record_fetch, record_prune, record_ship, render
from server.cli.options import At, Json, root

Records = Annotated[
    Path | None, typer.Option("--records", help="Routers' record folders [default: the workspace's]")
]


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="What routers wrote down about requests.", no_args_is_help=True)
    group.command("show")(show)
    group.command("ship")(record_ship.ship)
    group.command("fetch")(record_fetch.fetch)
    group.command("prune")(record_prune.prune)
    group.command("forget")(forget)
    group.command("rewrap")(rewrap)
    app.add_typer(group, name="record")


def show(
    record: Annotated[str, typer.Argument(help="Its id, from the header X-Tenon-Record")],
    text: Annotated[bool, typer.Option("--text", help="Decrypt what was asked and answered")] = False,
    key: Annotated[
        Path | None, typer.Option("--retention-key", help="The router's key [default: the workspace's]")
    ] = None,
    matches: Annotated[
        Path | None, typer.Option("--matches", help="Tell whether this file is what was asked or answered")
    ] = None,
    records: Records = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Show a request's record; with --text also the texts, if its policy kept them. With --matches the exit
    code is 1 if the file is neither the question nor the answer."""
    from server.assembly.kept_texts import find_record, open_text
    from server.assembly.kept_texts import matches as matching
    from server.workspace import find

    folder = records or find(root(workspace)).records
    found = find_record(folder, record)
    fields = {name: value for name, value in found.model_dump(mode="json").items() if value is not None}
    if text:
        opened = open_text(folder, found, key or find(root(workspace)).retention_key)
        fields["question"] = opened.question.decode("utf-8", "replace")
        fields["answer_text"] = opened.answer.decode("utf-8", "replace")
    same: list[str] | None = None
    if matches is not None:
        from server.errors import FileUnusable

        try:
            data = matches.read_bytes()
        except OSError as error:
            raise FileUnusable(f"cannot read {matches}: {error.strerror}") from None
        same = matching(folder, found, data, key or _retention_key(workspace))
        fields["matches"] = same
    if json:
        render.data(fields)
    else:
        render.table(found.id, ["what", "value"], [[name, str(value)] for name, value in fields.items()])
    if same == []:
        raise typer.Exit(1)


def _retention_key(workspace: str | None) -> Path:
    from server.workspace import find

    return find(root(workspace)).retention_key


def rewrap(
    key: Annotated[
        Path | None,
        typer.Option("--retention-key", help="A key a line, the new one first [default: the workspace's]"),
    ] = None,
    records: Records = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Wrap all tenants' keys with the first key of the file: the others can then be taken out of it."""
    from server.assembly.kept_texts import rewrap as wrapped
    from server.workspace import find

    done = wrapped(records or find(root(workspace)).records, key or find(root(workspace)).retention_key)
    if json:
        render.data({"writers": done})
    else:
        render.text("\n".join(f"{name}: {len(tenants)} keys" for name, tenants in done.items()) or "no keys")


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
