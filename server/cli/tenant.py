"""``tenon tenant``"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli import render
from server.cli.isolate import isolate
from server.cli.options import At, Json, place

if TYPE_CHECKING:
    from registry.models import Isolation

Name = Annotated[str, typer.Argument(help="Which tenant")]
UNLIMITED = "a number, or unlimited"


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Who owns adapters.", no_args_is_help=True)
    group.command("add")(add)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("suspend")(suspend)
    group.command("resume")(resume)
    group.command("quota")(quota)
    group.command("isolate")(isolate)
    app.add_typer(group, name="tenant")


def add(
    name: Annotated[str, typer.Argument(help="Short name, such as bank_a")],
    display: Annotated[str, typer.Option("--display", help="Name for people")] = "",
    json: Json = False,
    workspace: At = None,
) -> None:
    """Create a tenant."""
    from registry.models import Tenant
    from registry.names import parse_name

    tenant = Tenant(id=parse_name(name, "tenant"), display_name=display or name)
    place(workspace).catalog.create_tenant(tenant, actor="cli")
    if json:
        render.data(tenant.model_dump(mode="json"))
    else:
        render.note(f"Tenant {name} created; issue a key with: tenon key issue {name}")


def list_(json: Json = False, workspace: At = None) -> None:
    """List tenants."""
    tenants = place(workspace).catalog.tenants()
    if json:
        render.data([tenant.model_dump(mode="json") for tenant in tenants])
        return
    rows = [[one.id, one.display_name, "suspended" if one.suspended else ""] for one in tenants]
    render.table("", ["tenant", "name", "state"], rows)


def show(name: Name, json: Json = False, workspace: At = None) -> None:
    """Show a tenant and what it may use."""
    tenant = place(workspace).catalog.tenant(name)
    if json:
        render.data(tenant.model_dump(mode="json"))
        return
    quota = tenant.quota.model_dump(mode="json", exclude={"weight"})
    rows = [
        ["name", tenant.display_name],
        ["state", "suspended" if tenant.suspended else "active"],
        ["isolation", _lives(tenant.isolation)],
        *[[what.replace("_", " "), "unlimited" if n is None else f"{n:,}"] for what, n in quota.items()],
        *([["weight", str(tenant.quota.weight)]] if tenant.quota.weight is not None else []),
    ]
    render.table(name, ["what", "value"], rows)


def _lives(isolation: "Isolation") -> str:
    where = f" on {', '.join(isolation.engines)}" if isolation.engines else ""
    return f"{isolation.level}{where}, {isolation.replicas} replicas"


def suspend(
    name: Name,
    reason: Annotated[str, typer.Option("--reason", help="Stays in the log")],
    json: Json = False,
    workspace: At = None,
) -> None:
    """Stop serving a tenant and refuse its keys; nothing is deleted."""
    catalog = place(workspace).catalog
    catalog.suspend_tenant(name, reason=reason, actor="cli")
    if json:
        render.data(catalog.tenant(name).model_dump(mode="json"))
    else:
        render.note(f"Tenant {name} is suspended; undo it with: tenon tenant resume {name}")


def resume(name: Name, json: Json = False, workspace: At = None) -> None:
    """Serve a suspended tenant again."""
    catalog = place(workspace).catalog
    catalog.resume_tenant(name, actor="cli")
    if json:
        render.data(catalog.tenant(name).model_dump(mode="json"))
    else:
        render.note(f"Tenant {name} is served again")


def quota(
    name: Name,
    requests_per_minute: Annotated[
        str | None, typer.Option("--requests-per-minute", metavar="N", help=UNLIMITED)
    ] = None,
    tokens_per_minute: Annotated[
        str | None, typer.Option("--tokens-per-minute", metavar="N", help=UNLIMITED)
    ] = None,
    tokens_per_day: Annotated[
        str | None, typer.Option("--tokens-per-day", metavar="N", help=UNLIMITED)
    ] = None,
    concurrent_requests: Annotated[
        str | None, typer.Option("--concurrent-requests", metavar="N", help=UNLIMITED)
    ] = None,
    weight: Annotated[
        str | None,
        typer.Option("--weight", metavar="N", help="Share of a busy engine, 1 to 1000; default for 1"),
    ] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Change what a tenant may use; what is not named stays as it is."""
    from registry.models import Quota

    given = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "tokens_per_day": tokens_per_day,
        "concurrent_requests": concurrent_requests,
    }
    changes = limits(given)
    if weight is not None:
        if weight != "default" and not (weight.isascii() and weight.isdecimal()):
            raise typer.BadParameter(f"--weight: a number, or default, not {weight!r}")
        changes["weight"] = None if weight == "default" else int(weight)
    if not changes:
        raise typer.BadParameter("name at least one limit")
    catalog = place(workspace).catalog
    changed = Quota.build(catalog.tenant(name).quota.model_dump(mode="json") | changes)
    catalog.set_quota(name, changed, actor="cli")
    if json:
        render.data(changed.model_dump(mode="json"))
    else:
        render.note(f"Quota of {name} changed; routers follow within seconds")


def limits(given: Mapping[str, str | None]) -> dict[str, int | None]:
    """Of a quota, what was named."""
    return {what: _limit(what, text) for what, text in given.items() if text is not None}


def _limit(what: str, text: str) -> int | None:
    if text == "unlimited":
        return None
    if not (text.isascii() and text.isdecimal()):
        raise typer.BadParameter(f"--{what.replace('_', '-')}: {UNLIMITED}, not {text!r}")
    return int(text)
