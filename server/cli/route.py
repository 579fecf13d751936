"""``tenon route``"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, place

if TYPE_CHECKING:
    from registry.models import Route, Routing

Tenant = Annotated[str, typer.Argument(help="Whose routes")]
File = Annotated[Path, typer.Argument(help="YAML: a list of routes, or {headers: …, routes: …}")]


def install(app: typer.Typer) -> None:
    from server.cli import route_prove

    group = typer.Typer(help="Which adapter and policy answer which request.", no_args_is_help=True)
    group.command("set")(set_)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("history")(history)
    group.command("prove")(route_prove.prove)
    app.add_typer(group, name="route")


def set_(
    tenant: Tenant,
    file: File,
    expect: Annotated[
        int | None, typer.Option("--expect", help="Revision that this one follows, else refuse")
    ] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Publish all routes of a tenant, at once or not at all, if their proof holds (exit code 3 if not)."""
    from server.assembly.rules import read_rules

    rules = read_rules(file, tenant)
    published = place(workspace).catalog.publish_routing(
        tenant, routes=rules.routes, headers=rules.headers, expect_revision=expect, actor="cli"
    )
    if json:
        render.data(published.model_dump(mode="json"))
    else:
        render.note(f"{len(published.routes)} routes of {tenant} in force, revision {published.revision}")


def list_(tenant: Tenant, json: Json = False, workspace: At = None) -> None:
    """List a tenant's routes."""
    routes = place(workspace).catalog.routing(tenant).routes
    if json:
        render.data([route.model_dump(mode="json") for route in routes])
        return
    render.table("", ["route", "model", "when", "adapter", "policy"], [_row(route) for route in routes])


def show(
    tenant: Tenant,
    revision: Annotated[int | None, typer.Option("--revision", help="An earlier one")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Show what is in force, or an earlier revision: declared headers and routes."""
    from registry.errors import InvalidInput

    catalog = place(workspace).catalog
    shown = catalog.routing(tenant)
    if revision is not None and revision != shown.revision:
        earlier = [move.routing for move in catalog.routings(tenant) if move.routing.revision == revision]
        if not earlier:
            raise InvalidInput(f"{tenant} has no revision {revision}", hint=f"tenon route history {tenant}")
        shown = earlier[0]
    if json:
        render.data(shown.model_dump(mode="json"))
        return
    render.table(
        f"{tenant}, revision {shown.revision}",
        ["route", "model", "when", "adapter", "policy"],
        [_row(route) for route in shown.routes],
    )
    if shown.headers:
        rows = [
            [header.name, ", ".join(header.values), "yes" if header.required else "no"]
            for header in shown.headers
        ]
        render.table("", ["header", "values", "required"], rows)


def history(tenant: Tenant, json: Json = False, workspace: At = None) -> None:
    """Every publication, oldest first: when, by whom, and what changed."""
    moves = place(workspace).catalog.routings(tenant)
    if json:
        render.data(
            [
                {
                    "entry": move.entry,
                    "at": move.at,
                    "actor": move.actor,
                    "routing": move.routing.model_dump(mode="json"),
                }
                for move in moves
            ]
        )
        return
    rows, before = [], None
    for move in moves:
        changes = _changes(before, move.routing)
        rows.append([str(move.routing.revision), move.at, move.actor, str(len(move.routing.routes)), changes])
        before = move.routing
    render.table("", ["revision", "at", "who", "routes", "changed"], rows)


def _row(route: "Route") -> list[str]:
    when = ", ".join(f"{header}={value}" for header, value in route.when.items()) or "(default)"
    return [route.name, route.model, when, f"{route.adapter}:{route.alias}", route.policy.short]


def _changes(before: "Routing | None", now: "Routing") -> str:
    """``+new -gone ~changed``, and whether headers were declared anew."""
    old = {route.name: route for route in before.routes} if before else {}
    new = {route.name: route for route in now.routes}
    words = [f"+{name}" for name in new if name not in old] + [f"-{name}" for name in old if name not in new]
    words += [f"~{name}" for name, route in new.items() if name in old and old[name] != route]
    if before is not None and before.headers != now.headers:
        words.append("headers")
    return " ".join(words) or "order"
