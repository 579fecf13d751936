"""``tenon tenant isolate``"""

from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, place


def isolate(
    name: Annotated[str, typer.Argument(help="Which tenant")],
    level: Annotated[str, typer.Option("--level", help="shared, pinned, dedicated or merged")],
    engine: Annotated[
        list[str] | None,
        typer.Option("--engine", help="One that is the tenant's alone; again for more. Default: chosen"),
    ] = None,
    replicas: Annotated[
        int | None, typer.Option("--replicas", min=1, max=64, help="Engines for each version")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also take the last engine that other tenants need")
    ] = False,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Say how much of an engine a tenant has to itself; it moves there without a gap."""
    from registry.models import Isolation, Level

    levels = [each.value for each in Level]
    if level not in levels:
        raise typer.BadParameter(f"--level: one of {', '.join(levels)}, not {level!r}")
    catalog = place(workspace).catalog
    before = catalog.tenant(name).isolation
    wish = Isolation.build(
        {
            "level": level,
            "engines": list(engine or ()),
            "replicas": before.replicas if replicas is None else replicas,
        }
    )
    now = catalog.isolate_tenant(name, wish, force=force, actor="cli")
    if json:
        render.data(now.model_dump(mode="json"))
        return
    where = f" on {', '.join(now.engines)}" if now.engines else ""
    render.note(f"{name} is {now.level}{where}; its versions move without a gap. Look on with: tenon fleet")
