"""``tenon key``"""

from typing import Annotated

import typer

from registry.models import Role
from server.cli import render
from server.cli.options import At, Json, root


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Credentials of tenants.", no_args_is_help=True)
    group.command("issue")(issue)
    group.command("list")(list_)
    group.command("revoke")(revoke)
    app.add_typer(group, name="key")


def issue(
    tenant: Annotated[str, typer.Argument(help="Whose key")],
    role: Annotated[Role, typer.Option("--role", help="What it may do")] = Role.INFERENCE,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Issue a key. The secret is printed once and cannot be shown again."""
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    key, secret = open_catalog(find(root(workspace))).issue_key(tenant, role=role, actor="cli")
    if json:
        render.data({"id": key.id, "tenant": key.tenant, "role": key.role.value, "secret": secret})
    else:
        render.text(secret)
        render.note(f"Key {key.id} of {tenant} ({key.role.value}); keep the secret, it is not shown again")


def list_(
    tenant: Annotated[str, typer.Argument(help="Whose keys")], json: Json = False, workspace: At = None
) -> None:
    """List a tenant's keys (never their secrets)."""
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    keys = open_catalog(find(root(workspace))).keys(tenant)
    if json:
        render.data([{"id": key.id, "role": key.role.value, "revoked": key.revoked} for key in keys])
    else:
        rows = [[key.id, key.role.value, "revoked" if key.revoked else "valid"] for key in keys]
        render.table("", ["key", "role", "state"], rows)


def revoke(key: Annotated[str, typer.Argument(help="Key id")], workspace: At = None) -> None:
    """Revoke a key; routers refuse it within seconds."""
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    open_catalog(find(root(workspace))).revoke_key(key, actor="cli")
    render.note(f"Key {key} revoked")
