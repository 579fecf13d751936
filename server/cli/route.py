"""``tenon route``"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, root

if TYPE_CHECKING:
    from registry.models import Route


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Which adapter and policy answer which request.", no_args_is_help=True)
    group.command("set")(set_)
    group.command("list")(list_)
    app.add_typer(group, name="route")


def set_(
    tenant: Annotated[str, typer.Argument(help="Whose routes")],
    file: Annotated[Path, typer.Argument(help="YAML list of {name, model, when, adapter, alias, policy}")],
    workspace: At = None,
) -> None:
    """Replace all routes of a tenant, at once or not at all."""
    import yaml

    from registry.errors import InvalidDocument
    from registry.models import Route
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    try:
        rules = yaml.safe_load(file.read_text())
        routes = [Route.build({"tenant": tenant} | rule) for rule in rules]
    except (yaml.YAMLError, TypeError, UnicodeDecodeError) as error:
        raise InvalidDocument(f"{file}: not a YAML list of routes: {error}") from None
    open_catalog(find(root(workspace))).replace_routes(tenant, routes, actor="cli")
    render.note(f"{len(routes)} routes of {tenant} in force")


def list_(
    tenant: Annotated[str, typer.Argument(help="Whose routes")], json: Json = False, workspace: At = None
) -> None:
    """List a tenant's routes."""
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    routes = open_catalog(find(root(workspace))).routes(tenant)
    if json:
        render.data([route.model_dump(mode="json") for route in routes])
        return
    rows = [
        [route.name, route.model, _conditions(route), f"{route.adapter}:{route.alias}", route.policy.short]
        for route in routes
    ]
    render.table("", ["route", "model", "when", "adapter", "policy"], rows)


def _conditions(route: "Route") -> str:
    return ", ".join(f"{header}={value}" for header, value in route.when.items()) or "(default)"
