"""``tenon base``"""

from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, root


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Base models that adapters are trained on.", no_args_is_help=True)
    group.command("add")(add)
    group.command("show")(show)
    app.add_typer(group, name="base")


def add(
    name: Annotated[str, typer.Argument(help="Name in recipes and commands")],
    source: Annotated[str, typer.Argument(help="Folder, or a hub name such as Qwen/Qwen3-0.6B")],
    revision: Annotated[str | None, typer.Option("--revision", help="Hub commit or tag")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Register a base: its digests and its contract (template and tokenizer, as golden token ids)."""
    from registry.names import parse_name
    from server.assembly import bases
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    place = find(root(workspace))
    digest, base = bases.register(
        place,
        open_catalog(place),
        name=parse_name(name, "base"),
        source=source,
        revision=revision,
        actor="cli",
    )
    if json:
        render.data({"digest": digest} | base.model_dump(mode="json"))
        return
    render.note(f"Base {name} is {digest.short} ({len(base.modules)} modules a LoRA may target)")


def show(
    name: Annotated[str, typer.Argument(help="Registered name or digest")],
    json: Json = False,
    workspace: At = None,
) -> None:
    """Show what pins a base."""
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    digest, base, contract = open_catalog(find(root(workspace))).base(name)
    if json:
        render.data({"digest": digest} | base.model_dump(mode="json"))
        return
    rows = [
        ["digest", digest],
        ["revision", base.revision],
        ["weights", base.weights],
        ["tokenizer", base.tokenizer],
        ["chat template", base.chat_template],
        ["golden conversations", str(len(contract.golden))],
    ]
    render.table(base.name, ["what", "value"], rows)
