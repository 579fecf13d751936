"""``tenon tenant``"""

from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, root


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Who owns adapters.", no_args_is_help=True)
    group.command("add")(add)
    group.command("list")(list_)
    app.add_typer(group, name="tenant")


def add(
    name: Annotated[str, typer.Argument(help="Short name, such as bank_a")],
    display: Annotated[str, typer.Option("--display", help="Name for people")] = "",
    workspace: At = None,
) -> None:
    """Create a tenant."""
    from registry.models import Tenant
    from registry.names import parse_name
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    tenant = Tenant(id=parse_name(name, "tenant"), display_name=display or name)
    open_catalog(find(root(workspace))).create_tenant(tenant, actor="cli")
    render.note(f"Tenant {name} created; issue a key with: tenon key issue {name}")


def list_(json: Json = False, workspace: At = None) -> None:
    """List tenants."""
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    tenants = open_catalog(find(root(workspace))).tenants()
    if json:
        render.data([tenant.model_dump(mode="json") for tenant in tenants])
    else:
        render.table("", ["tenant", "name"], [[tenant.id, tenant.display_name] for tenant in tenants])
