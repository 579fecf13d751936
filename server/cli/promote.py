"""``tenon promote`` and ``tenon rollback``"""

from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, root

_FALLBACK = ("policy>=0.9", "valid_json>=0.9")
"""For a version that no recipe of this workspace made."""


def install(app: typer.Typer) -> None:
    app.command("promote")(promote)
    app.command("rollback")(rollback)


def promote(
    ref: Annotated[str, typer.Argument(help="tenant/adapter@sha256:…")],
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", help="Instead of the recipe's gate: METRIC>=VALUE, or METRIC>base+VALUE"),
    ] = None,
    alias: Annotated[str, typer.Option("--alias", help="Which alias moves")] = "live",
    json: Json = False,
    workspace: At = None,
) -> None:
    """Move an alias to a version, if the gate passes on signed evidence (exit code 3: refused)."""
    from registry.errors import InvalidRef
    from registry.names import Ref
    from server.assembly.catalog import open_catalog
    from server.assembly.training import gate_of
    from server.cli.rules import parse_gate
    from server.workspace import find

    target = Ref.parse(ref)
    if target.version is None:
        raise InvalidRef("promote needs an exact version", hint="write tenant/adapter@sha256:…")
    place = find(root(workspace))
    catalog = open_catalog(place)
    own = gate_of(place, catalog.manifest(target.version))
    gate = parse_gate(rule) if rule else own or parse_gate(_FALLBACK)
    if rule and own is not None:
        render.note("The rules given replace the gate of the version's recipe")
    verdict = catalog.promote(target.name, target.version, gate=gate, alias=alias, actor="cli")
    if json:
        render.data(verdict.model_dump(mode="json"))
        return
    for reason in verdict.reasons:
        render.note(f"  - {reason}")
    render.note(f"{target.name}:{alias} is now {target.version.short}")


def rollback(
    name: Annotated[str, typer.Argument(help="tenant/adapter")],
    alias: Annotated[str, typer.Option("--alias", help="Which alias moves back")] = "live",
    json: Json = False,
    workspace: At = None,
) -> None:
    """Move an alias back to the version before."""
    from registry.names import AdapterName
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    state = open_catalog(find(root(workspace))).rollback(AdapterName.parse(name), alias=alias, actor="cli")
    if json:
        render.data(state.model_dump(mode="json"))
    else:
        render.note(f"{name}:{alias} is back at {state.version.short}")
