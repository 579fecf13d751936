"""``tenon revoke``"""

from typing import Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, place


def install(app: typer.Typer) -> None:
    app.command("revoke")(revoke)


def revoke(
    ref: Annotated[str, typer.Argument(help="tenant/adapter@sha256:…")],
    reason: Annotated[str, typer.Option("--reason", help="Stays in the log")],
    json: Json = False,
    workspace: At = None,
) -> None:
    """Withdraw a version for good: no engine keeps it, and no alias that shows it answers any more."""
    from registry.errors import InvalidRef
    from registry.names import Ref

    target = Ref.parse(ref)
    if target.version is None:  # an alias may have moved since somebody looked
        raise InvalidRef("revoke needs an exact version", hint="write tenant/adapter@sha256:…")
    catalog = place(workspace).catalog
    version = catalog.resolve(target)
    catalog.revoke(version, reason=reason, actor="cli")
    shown = [state.alias for state in catalog.aliases(target.name) if state.version == version]
    if json:
        render.data({"version": version, "aliases": shown})
        return
    render.note(f"{version.short} is revoked")
    for alias in shown:
        back = f"tenon rollback {target.name} --alias {alias}"
        render.note(f"{target.name}:{alias} shows it and answers nobody: {back}")
